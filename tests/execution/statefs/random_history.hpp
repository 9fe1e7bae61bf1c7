#pragma once

// Random histories of operations, run on file systems and on the reference, compared at every step.

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "base/prng.hpp"
#include "tests/execution/state/store_test_model.hpp"
#include "tests/execution/statefs/reference_files.hpp"

namespace zz::execution::statefs::testing {

using state::testing::digest_of;
using state::testing::in_memory;
using state::testing::root_of;
using state::testing::take;

inline std::string text_of(const ReadOutcome& out) {
  std::string text;
  for (const SharedBytes& piece : out.pieces) text += piece.text();
  return text;
}

// A file system and its store. What is absent comes from `source`, if there is one.
struct Files {
  explicit Files(const Limits& limits = {}) : store(in_memory()), fs(*store, limits) {
    EXPECT_TRUE(fs.format({0, 0}, 0755).ok());
  }
  // The state of `from`, of which nothing is here.
  Files(Files& from, const state::Snapshot& snapshot) : store(in_memory()), fs(*store), source(&from), of(snapshot) {
    store->adopt(digest_of(*from.store, snapshot));
    fs.replaced();
    EXPECT_TRUE(run([&] { return fs.format({7, 7}, 0700); }).ok());
  }
  // Until nothing is missing.
  template <class Operation>
  std::invoke_result_t<Operation> run(Operation operation) {
    auto out = operation();
    while (!out.missing.empty()) {
      EXPECT_EQ(out.error, 0);
      EXPECT_NE(source, nullptr);
      for (const state::Want& want : out.missing) {
        const std::optional<state::Part> part = source->store->part(of, want);
        EXPECT_TRUE(part);
        const Refusal refusal = part ? store->supply(*part) : Refusal::kMalformed;
        EXPECT_TRUE(refusal == Refusal::kNone || refusal == Refusal::kDuplicate) << to_string(refusal);
        if (refusal != Refusal::kNone && refusal != Refusal::kDuplicate) return out;
      }
      ++rounds;
      out = operation();
    }
    return out;
  }

  std::unique_ptr<state::ObjectStore> store;
  FileSystem fs;
  Files* source = nullptr;
  state::Snapshot of;
  std::uint64_t rounds = 0;
};

class History {
 public:
  explicit History(std::uint64_t seed) : prng_(seed) { advance(); }

  // One operation on the reference and on all of `replicas`.
  void step(const std::vector<Files*>& replicas) {
    if (prng_.below(5) == 0) advance();
    for (Files* const files : replicas) files->fs.set_time(Micros{micros_});
    const Inode inode{some_inode()};
    const Inode directory{some_directory()};
    const std::string name = some_name();
    const std::uint64_t i = inode.value;
    const std::uint64_t d = directory.value;
    int expected = 0;
    std::function<Outcome(FileSystem&)> operation;
    switch (prng_.below(16)) {
      case 0:
      case 1: {
        NewInode what{static_cast<std::uint32_t>(S_IFREG | prng_.below(01000)), {}, 0, {}};
        operation = make(d, name, what, {}, expected);
        break;
      }
      case 2:
        operation = make(d, name, {S_IFDIR | 0755, {}, 0, {}}, {}, expected);
        break;
      case 3:
        target_ = "../" + name;
        operation = make(d, name, {S_IFLNK | 0777, {}, 0, target_}, target_, expected);
        break;
      case 4:
        expected = reference.link(i, d, name);
        operation = [=](FileSystem& fs) { return Outcome(fs.link(inode, directory, name)); };
        break;
      case 5:
        expected = reference.unlink(d, name);
        operation = [=](FileSystem& fs) { return fs.unlink(directory, name); };
        break;
      case 6:
        expected = reference.rmdir(d, name);
        operation = [=](FileSystem& fs) { return fs.rmdir(directory, name); };
        break;
      case 7: {
        const Inode to{some_directory()};
        const std::string new_name = some_name();
        const auto mode = static_cast<RenameMode>(prng_.below(3));
        expected = reference.rename(d, name, to.value, new_name, mode);
        operation = [=](FileSystem& fs) { return fs.rename(directory, name, to, new_name, mode); };
        break;
      }
      case 8:
      case 9:
      case 10: {
        const std::uint64_t offset = some_offset();
        const std::string bytes = some_bytes();
        expected = reference.write(i, offset, bytes);
        operation = [=](FileSystem& fs) { return fs.write(inode, offset, as_bytes(bytes)); };
        break;
      }
      case 11: {
        Change change;
        change.size = some_offset();
        expected = reference.resize(i, *change.size);
        operation = [=](FileSystem& fs) { return Outcome(fs.change(inode, change)); };
        break;
      }
      case 12: {
        const std::uint64_t offset = some_offset();
        const std::uint64_t length = 1 + some_offset();
        const auto mode = static_cast<AllocateMode>(prng_.below(3));
        expected = reference.allocate(i, offset, length, mode);
        operation = [=](FileSystem& fs) { return fs.allocate(inode, offset, length, mode); };
        break;
      }
      case 13: {
        const auto mode = static_cast<AttributeMode>(prng_.below(3));
        const std::string value = some_bytes().substr(0, 200);
        expected = reference.set_attribute(i, "user." + name, value, mode);
        operation = [=](FileSystem& fs) { return fs.set_attribute(inode, "user." + name, as_bytes(value), mode); };
        break;
      }
      case 14:
        expected = reference.remove_attribute(i, "user." + name);
        operation = [=](FileSystem& fs) { return fs.remove_attribute(inode, "user." + name); };
        break;
      default: {
        Change change;
        change.permissions = static_cast<std::uint32_t>(prng_.below(010000));
        change.uid = static_cast<std::uint32_t>(prng_.below(5));
        change.gid = static_cast<std::uint32_t>(prng_.below(5));
        change.accessed_now = true;
        change.modified = Time{static_cast<std::int64_t>(prng_.next() >> 30) - 1'000'000, 123'456'789};
        ReferenceFiles::Node* const node = reference.find(i);
        expected = node == nullptr ? ESTALE : 0;
        if (node != nullptr) {
          node->mode = (node->mode & S_IFMT) | *change.permissions;
          node->uid = *change.uid;
          node->gid = *change.gid;
          node->modified = *change.modified;
          node->accessed = node->changed = reference.now();
        }
        operation = [=](FileSystem& fs) { return Outcome(fs.change(inode, change)); };
      }
    }
    for (Files* const files : replicas) {
      const Outcome out = files->run([&] { return operation(files->fs); });
      ASSERT_EQ(out.error, expected) << "inode " << i << " directory " << d << " name " << name;
    }
  }

  // What is not state: one replica may do it and the other not. Compares what is read.
  void look(Files& files) {
    const Inode inode{some_inode()};
    const std::uint64_t i = inode.value;
    ReferenceFiles::Node* const node = reference.find(i);
    const AttributesOutcome stat = files.run([&] { return files.fs.stat(inode); });
    ASSERT_EQ(stat.error, node == nullptr ? ESTALE : 0);
    if (node == nullptr) return;
    compare(files, i);
  }
  void hold(const std::vector<Files*>& replicas) {
    const std::uint64_t inode = some_inode();
    if (reference.find(inode) == nullptr) return;
    held_.push_back(inode);
    reference.hold(inode);
    for (Files* const files : replicas) files->fs.hold(Inode{inode});
  }
  void release(const std::vector<Files*>& replicas, bool all = false) {
    while (!held_.empty()) {
      const std::uint64_t inode = held_[prng_.below(held_.size())];
      held_.erase(std::find(held_.begin(), held_.end(), inode));
      reference.release(inode);
      for (Files* const files : replicas) files->fs.release(Inode{inode});
      if (!all) return;
    }
  }

  // Everything.
  void compare(Files& files) {
    for (const auto& [inode, node] : reference.nodes()) {
      compare(files, inode);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  void compare(Files& files, std::uint64_t i) {
    const Inode inode{i};
    ReferenceFiles::Node& node = *reference.find(i);
    const AttributesOutcome stat = files.run([&] { return files.fs.stat(inode); });
    ASSERT_EQ(stat.error, 0) << i;
    const Record& record = stat.attributes.record;
    ASSERT_EQ(record.mode, node.mode) << i;
    ASSERT_EQ(record.uid, node.uid) << i;
    ASSERT_EQ(record.gid, node.gid) << i;
    ASSERT_EQ(record.links, reference.links(i)) << i;
    ASSERT_EQ(record.accessed, node.accessed) << i;
    ASSERT_EQ(record.modified, node.modified) << i;
    ASSERT_EQ(record.changed, node.changed) << i;
    const NamesOutcome names = files.run([&] { return files.fs.attribute_names(inode); });
    ASSERT_EQ(names.names.size(), node.attributes.size()) << i;
    for (const auto& [name, value] : node.attributes) {
      const std::string& attribute = name;
      const BytesOutcome got = files.run([&] { return files.fs.attribute(inode, attribute); });
      ASSERT_EQ(got.bytes.text(), value) << i;
    }
    if (S_ISREG(node.mode)) {
      ASSERT_EQ(record.size, node.bytes.size()) << i;
      const std::uint64_t from = prng_.below(2) == 0 ? 0 : some_offset();
      const ReadOutcome read = files.run([&] { return files.fs.read(inode, from, 300'000); });
      ASSERT_TRUE(text_of(read) == (from < node.bytes.size() ? node.bytes.substr(from, 300'000) : "")) << i;
    } else if (S_ISLNK(node.mode)) {
      ASSERT_EQ(files.run([&] { return files.fs.target(inode); }).bytes.text(), node.bytes);
    } else {
      compare_names(files, i, node);
    }
  }

  ReferenceFiles reference;

 private:
  void advance() {
    micros_ += 1 + static_cast<std::int64_t>(prng_.below(3'000'000));
    reference.set_time(to_time(Micros{micros_}));
  }
  std::function<Outcome(FileSystem&)> make(std::uint64_t d, const std::string& name, NewInode what,
                                           const std::string& target, int& expected) {
    const ReferenceFiles::Answer answer = reference.make(d, name, what.mode, target);
    expected = answer.error;
    if (answer.error == 0) known_.push_back(answer.inode);
    return [=](FileSystem& fs) {
      const AttributesOutcome out = fs.make(Inode{d}, name, what);
      if (out.ok()) {
        EXPECT_EQ(out.attributes.inode.value, answer.inode) << "inodes are given out in order";
      }
      return Outcome(out);
    };
  }
  void compare_names(Files& files, std::uint64_t i, const ReferenceFiles::Node& node) {
    std::map<std::string, std::uint64_t> listed;
    std::uint64_t after = 0;
    for (;;) {
      const std::size_t limit = 1 + prng_.below(9);
      const ListOutcome list = files.run([&] { return files.fs.list(Inode{i}, after, limit); });
      ASSERT_EQ(list.error, 0);
      if (list.entries.empty()) break;
      for (const ListedEntry& entry : list.entries) {
        ASSERT_GT(entry.offset, after);
        after = entry.offset;
        ASSERT_TRUE(listed.emplace(entry.name, entry.inode.value).second) << "listed once";
      }
    }
    ASSERT_EQ(listed["."], i);
    ASSERT_EQ(listed[".."], node.parent);
    listed.erase(".");
    listed.erase("..");
    ASSERT_EQ(listed, node.names);
    for (const auto& [name, child] : node.names) {
      const std::string& wanted = name;
      const AttributesOutcome out = files.run([&] { return files.fs.lookup(Inode{i}, wanted); });
      ASSERT_EQ(out.attributes.inode.value, child);
    }
  }

  std::uint64_t some_inode() {
    if (known_.empty() || prng_.below(30) == 0) return 1 + prng_.below(3);
    const std::size_t recent = std::min<std::size_t>(known_.size(), prng_.below(2) == 0 ? 20 : 400);
    return known_[known_.size() - 1 - prng_.below(recent)];
  }
  std::uint64_t some_directory() {
    for (int i = 0; i < 6; ++i) {
      const std::uint64_t inode = some_inode();
      const ReferenceFiles::Node* const node = reference.find(inode);
      if (node != nullptr && S_ISDIR(node->mode)) return inode;
    }
    return prng_.below(20) == 0 ? some_inode() : 1;
  }
  std::string some_name() {
    std::string name = "n" + std::to_string(prng_.below(prng_.below(3) == 0 ? 300 : 12));
    if (name.back() == '7') name.resize(240, 'x');  // leaves of few entries
    return name;
  }
  std::uint64_t some_offset() {
    static constexpr std::uint64_t kEdges[] = {0, kInlineBytesMax, kBlockBytes, 2 * kBlockBytes, 5 * kBlockBytes};
    const std::uint64_t edge = kEdges[prng_.below(5)];
    const std::uint64_t near = edge + prng_.below(5);
    return prng_.below(2) == 0 ? prng_.below(120'000) : near < 2 ? near : near - 2;
  }
  std::string some_bytes() {
    std::string bytes(prng_.below(4) == 0 ? prng_.below(60'000) : prng_.below(900), '\0');
    if (prng_.below(5) != 0) {
      for (char& byte : bytes) byte = static_cast<char>(prng_.next());
    }
    return bytes;
  }

  Prng prng_;
  std::int64_t micros_ = 1'700'000'000'000'000;
  std::vector<std::uint64_t> known_;
  std::vector<std::uint64_t> held_;
  std::string target_;
};

}  // namespace zz::execution::statefs::testing
