#include "execution/statefs/file_system.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "tests/execution/statefs/random_history.hpp"

namespace zz::execution::statefs::testing {
namespace {

constexpr Owner kRoot{0, 0};

// ZZ_STATEFS_SEEDS: histories of the random tests.
std::uint64_t seeds() {
  const char* const text = std::getenv("ZZ_STATEFS_SEEDS");
  return text == nullptr ? 20 : std::strtoull(text, nullptr, 10);
}

Inode make_file(FileSystem& fs, Inode directory, const std::string& name) {
  const AttributesOutcome out = fs.make(directory, name, {S_IFREG | 0644, kRoot, 0, {}});
  EXPECT_EQ(out.error, 0) << name;
  return out.attributes.inode;
}

TEST(StateFiles, DoWhatFilesDoAndTheirBytesMetadataAndErrorsAreTheReferences) {
  for (std::uint64_t seed = 1; seed <= seeds(); ++seed) {
    SCOPED_TRACE(seed);
    History history(seed);
    Files files;
    const std::vector<Files*> all{&files};
    for (int i = 0; i < 2'000; ++i) {
      history.step(all);
      if (i % 7 == 0) history.hold(all);
      if (i % 8 == 0) history.release(all);
      if (i % 10 == 0) history.look(files);
      if (HasFatalFailure()) return;
    }
    history.compare(files);
    if (HasFatalFailure()) return;
    history.release(all, true);
    EXPECT_EQ(files.fs.orphans(), 0u);
    EXPECT_EQ(files.fs.counters().damaged, 0u);
  }
}

// One replica has the state, one begins with a root digest and fetches what it touches; the second also looks at
// things, and lists them, at other times.
TEST(StateFiles, EqualOperationsGiveEqualStateWhateverIsAbsentOrLookedAtBetween) {
  for (std::uint64_t seed = 1; seed <= seeds(); ++seed) {
    SCOPED_TRACE(seed);
    History history(seed + 1'000'000);
    Files first;
    for (int i = 0; i < 1'000; ++i) history.step({&first});
    if (HasFatalFailure()) return;
    const state::Snapshot snapshot = take(*first.store);
    Files second(first, snapshot);
    const std::vector<Files*> both{&first, &second};
    for (int i = 0; i < 500; ++i) {
      history.step(both);
      if (i % 3 == 0) history.look(second);
      if (i % 7 == 0) history.hold(both);
      if (i % 11 == 0) history.release(both);
      if (HasFatalFailure()) return;
    }
    EXPECT_GT(second.rounds, 50u) << "it had nothing";
    const Digest root = root_of(*first.store);
    if (seed % 2 == 0) {
      history.release({&second}, true);  // at another time than the other
      history.compare(second);
      if (HasFatalFailure()) return;
    }
    // The digest needs the verified digests of what is absent, not its bytes.
    EXPECT_EQ(root_of(*second.store), root);
  }
}

TEST(StateFiles, WhatIsLookedUpAndAbsentIsAskedForWithItsNamesOrBytes) {
  Files whole;
  const Inode file = make_file(whole.fs, kRootInode, "f");
  ASSERT_TRUE(whole.fs.write(file, 0, as_bytes(std::string(3 * kBlockBytes, 'x'))).ok());
  const AttributesOutcome made = whole.fs.make(kRootInode, "d", {S_IFDIR | 0755, kRoot, 0, {}});
  ASSERT_TRUE(made.ok());
  make_file(whole.fs, made.attributes.inode, "in");
  Files woken(whole, take(*whole.store));
  ASSERT_TRUE(woken.run([&] { return woken.fs.list(kRootInode, 0, 10); }).ok());
  const auto is_asked_for = [](const Outcome& out, ObjectId id) {
    return std::ranges::any_of(out.missing, [id](const state::Want& want) { return want.toward == id; });
  };
  const AttributesOutcome looked = woken.fs.lookup(kRootInode, "f");
  EXPECT_TRUE(is_asked_for(looked, record_of(file)));
  EXPECT_TRUE(is_asked_for(looked, block_of(file, 0)));
  EXPECT_TRUE(is_asked_for(looked, block_of(file, 2)));
  const Inode directory = made.attributes.inode;
  EXPECT_TRUE(is_asked_for(woken.fs.lookup(kRootInode, "d"), leaf_of(directory, kLastLeaf)));
  EXPECT_EQ(woken.run([&] { return woken.fs.lookup(kRootInode, "f"); }).attributes.record.size, 3 * kBlockBytes);
}

TEST(StateFiles, AFilesObjectsDependOnItsBytesAloneNotOnHowTheyWereWritten) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    Prng prng(seed);
    Files one;
    Files other;
    const Inode a = make_file(one.fs, kRootInode, "f");
    const Inode b = make_file(other.fs, kRootInode, "f");
    std::string bytes(prng.below(200'000), '\0');
    for (int turn = 0; turn < 30; ++turn) {
      const std::uint64_t offset = prng.below(220'000);
      std::string part(prng.below(30'000), static_cast<char>(prng.below(3)));
      if (prng.below(4) == 0) {
        Change change;
        change.size = offset;
        EXPECT_TRUE(one.fs.change(a, change).ok());
        bytes.resize(offset);
        continue;
      }
      if (part.empty()) continue;
      EXPECT_TRUE(one.fs.write(a, offset, as_bytes(part)).ok());
      if (bytes.size() < offset + part.size()) bytes.resize(offset + part.size());
      bytes.replace(offset, part.size(), part);
    }
    Change change;
    change.size = bytes.size();
    EXPECT_TRUE(one.fs.change(a, change).ok());
    for (std::uint64_t at = 0; at < bytes.size(); at += 4'096) {
      EXPECT_TRUE(
          other.fs.write(b, at, as_bytes(bytes).subspan(at, std::min<std::size_t>(4'096, bytes.size() - at))).ok());
    }
    EXPECT_EQ(root_of(*one.store), root_of(*other.store)) << "seed " << seed;
    EXPECT_EQ(text_of(one.fs.read(a, 0, 1 << 20)), bytes);
  }
}

TEST(StateFiles, ADirectorysObjectsDependOnItsEntriesAlone) {
  Files one;
  Files other;
  const Inode a = make_file(one.fs, kRootInode, "f");
  const Inode b = make_file(other.fs, kRootInode, "f");
  std::vector<std::string> names;
  for (int i = 0; i < 3'000; ++i) names.push_back("name-" + std::to_string(i) + std::string(i % 50, 'x'));
  for (const std::string& name : names) EXPECT_TRUE(one.fs.link(a, kRootInode, name).ok());
  Prng prng(1);
  for (std::size_t i = names.size(); i > 1; --i) std::swap(names[i - 1], names[prng.below(i)]);
  for (const std::string& name : names) {
    EXPECT_TRUE(other.fs.link(b, kRootInode, name).ok());
    EXPECT_TRUE(other.fs.link(b, kRootInode, "passing-" + name).ok());
  }
  EXPECT_NE(root_of(*one.store), root_of(*other.store));
  for (const std::string& name : names) EXPECT_TRUE(other.fs.unlink(kRootInode, "passing-" + name).ok());
  EXPECT_EQ(root_of(*one.store), root_of(*other.store));
  for (const std::string& name : names) EXPECT_TRUE(other.fs.unlink(kRootInode, name).ok());
  for (const std::string& name : names) EXPECT_TRUE(one.fs.unlink(kRootInode, name).ok());
  EXPECT_EQ(one.store->totals().objects, 4u) << "superblock, two inodes, the root's leaf of one name";
  EXPECT_EQ(root_of(*one.store), root_of(*other.store));
}

TEST(StateFiles, AListingNamesOnceWhatIsThereThroughoutWhateverIsMadeAndRemovedMeanwhile) {
  Files files;
  std::set<std::string> stay;
  for (int i = 0; i < 2'000; ++i) {
    const std::string name = (i % 2 == 0 ? "stays-" : "goes-") + std::to_string(i);
    make_file(files.fs, kRootInode, name);
    if (i % 2 == 0) stay.insert(name);
  }
  std::multiset<std::string> listed;
  std::uint64_t after = 0;
  for (int turn = 0;; ++turn) {
    const ListOutcome list = files.fs.list(kRootInode, after, 10);
    if (list.entries.empty()) break;
    for (const ListedEntry& entry : list.entries) listed.insert(entry.name);
    after = list.entries.back().offset;
    for (int i = 0; i < 30; ++i) {
      static_cast<void>(files.fs.unlink(kRootInode, "goes-" + std::to_string(turn * 60 + 2 * i + 1)));
      make_file(files.fs, kRootInode, "new-" + std::to_string(turn * 30 + i));
    }
  }
  for (const std::string& name : stay) EXPECT_EQ(listed.count(name), 1u) << name;
  EXPECT_EQ(listed.count("."), 1u);
}

TEST(StateFiles, WhatIsUnlinkedWhileItIsHeldLeavesTheStateAtOnceAndIsReadableUntilItIsReleased) {
  Files files;
  const Inode file = make_file(files.fs, kRootInode, "f");
  const Digest empty = [&] {
    Files fresh;
    const Inode gone = make_file(fresh.fs, kRootInode, "f");
    static_cast<void>(fresh.fs.unlink(kRootInode, "f"));
    EXPECT_EQ(fresh.fs.stat(gone).error, ESTALE);
    return root_of(*fresh.store);
  }();
  const std::string bytes(50'000, 'a');
  files.fs.hold(file);
  EXPECT_TRUE(files.fs.write(file, 0, as_bytes(bytes)).ok());
  EXPECT_TRUE(files.fs.unlink(kRootInode, "f").ok());
  EXPECT_EQ(root_of(*files.store), empty);
  EXPECT_EQ(text_of(files.fs.read(file, 0, 1 << 20)), bytes);
  EXPECT_TRUE(files.fs.write(file, 40'000, as_bytes(bytes)).ok());
  EXPECT_TRUE(files.fs.set_attribute(file, "user.a", as_bytes("b"), AttributeMode::kAny).ok());
  EXPECT_EQ(files.fs.stat(file).attributes.record.size, 90'000u);
  EXPECT_EQ(files.fs.stat(file).attributes.record.links, 0u);
  EXPECT_EQ(files.fs.link(file, kRootInode, "again").error, ENOENT);
  EXPECT_EQ(root_of(*files.store), empty);
  files.fs.release(file);
  EXPECT_EQ(files.fs.stat(file).error, ESTALE);
}

TEST(StateFiles, AHoleCostsNothingAndIsFound) {
  Files files;
  const Inode file = make_file(files.fs, kRootInode, "f");
  const std::uint64_t far = kFileBytesMax - 5;
  EXPECT_TRUE(files.fs.write(file, far, as_bytes("hello")).ok());
  EXPECT_EQ(files.fs.write(file, far, as_bytes("hello!")).error, EFBIG);
  EXPECT_EQ(files.fs.stat(file).attributes.record.size, kFileBytesMax);
  EXPECT_EQ(files.fs.stat(file).attributes.sectors(), kBlockBytes / 512);
  EXPECT_EQ(files.fs.seek(file, 0, SeekTo::kData).offset, kFileBytesMax - kBlockBytes);
  EXPECT_EQ(files.fs.seek(file, 0, SeekTo::kHole).offset, 0u);
  EXPECT_EQ(files.fs.seek(file, kFileBytesMax - kBlockBytes, SeekTo::kHole).offset, kFileBytesMax);
  EXPECT_EQ(files.fs.seek(file, kFileBytesMax, SeekTo::kData).error, ENXIO);
  EXPECT_EQ(text_of(files.fs.read(file, 1ull << 37, 40'000)), std::string(40'000, '\0'));
  const state::Totals before = files.store->totals();
  EXPECT_TRUE(files.fs.write(file, 1 << 20, as_bytes(std::string(100'000, '\0'))).ok());
  EXPECT_EQ(files.store->totals(), before) << "zeros are a hole";
  EXPECT_TRUE(files.fs.allocate(file, 0, kFileBytesMax, AllocateMode::kZero).ok());
  EXPECT_EQ(files.fs.stat(file).attributes.record.blocks, 0u);
}

TEST(StateFiles, AnOperationThatDoesNotFitChangesNothing) {
  Limits limits;
  limits.objects_max = 40;
  limits.bytes_max = 200'000;
  Files files(limits);
  const Inode file = make_file(files.fs, kRootInode, "f");
  const Digest before = root_of(*files.store);
  const std::string large(300'000, 'x');
  EXPECT_EQ(files.fs.write(file, 0, as_bytes(large)).error, ENOSPC);
  EXPECT_EQ(root_of(*files.store), before);
  EXPECT_TRUE(files.fs.write(file, 0, as_bytes(large).first(150'000)).ok());
  int made = 0;
  while (files.fs.make(kRootInode, "g" + std::to_string(made), {S_IFREG | 0644, kRoot, 0, {}}).ok()) ++made;
  EXPECT_GT(made, 10);
  const Digest full = root_of(*files.store);
  EXPECT_EQ(files.fs.make(kRootInode, "h", {S_IFREG | 0644, kRoot, 0, {}}).error, ENOSPC);
  EXPECT_EQ(root_of(*files.store), full);
  EXPECT_TRUE(files.fs.unlink(kRootInode, "f").ok()) << "what is full can be emptied";
}

TEST(StateFiles, NamesAndAttributesHaveTheirLimits) {
  Files files;
  EXPECT_EQ(files.fs.make(kRootInode, std::string(256, 'n'), {S_IFREG | 0644, kRoot, 0, {}}).error, ENAMETOOLONG);
  EXPECT_EQ(files.fs.make(kRootInode, "a/b", {S_IFREG | 0644, kRoot, 0, {}}).error, EINVAL);
  EXPECT_EQ(files.fs.make(kRootInode, "..", {S_IFREG | 0644, kRoot, 0, {}}).error, EEXIST);
  const Inode file = make_file(files.fs, kRootInode, std::string(255, 'n'));
  const std::string half(33'000, 'v');
  EXPECT_TRUE(files.fs.set_attribute(file, "user.a", as_bytes(half), AttributeMode::kAny).ok());
  EXPECT_EQ(files.fs.set_attribute(file, "user.b", as_bytes(half), AttributeMode::kAny).error, ENOSPC);
  EXPECT_EQ(files.fs.attribute(file, "user.b").error, ENODATA);
}

TEST(StateFiles, WhatIsNotAsItMustBeIsAnErrorThatIsCountedAndNeverACrash) {
  std::uint64_t damaged = 0;
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    Prng prng(seed);
    History history(seed + 2'000);
    Files files;
    for (int i = 0; i < 400; ++i) history.step({&files});
    if (HasFatalFailure()) return;
    std::vector<ObjectId> ids;
    for (auto next = files.store->next(ObjectId{0}); next.status == state::Status::kDone;
         next = files.store->next(next.id.next())) {
      ids.push_back(next.id);
    }
    for (int i = 0; i < 40; ++i) {
      const ObjectId id = ids[prng.below(ids.size())];
      const SharedBytes before = files.store->read(id).bytes;
      Bytes bytes(before.view().begin(), before.view().end());
      if (prng.below(4) == 0) {
        static_cast<void>(files.store->erase(id));
        continue;
      }
      if (prng.below(4) == 0) bytes.resize(prng.below(200));
      if (!bytes.empty())
        bytes[prng.below(std::min<std::size_t>(bytes.size(), 100))] ^= static_cast<std::uint8_t>(1 + prng.below(255));
      static_cast<void>(files.store->write(id, bytes));
    }
    for (int i = 0; i < 3'000; ++i) {
      const Inode inode{1 + prng.below(120)};
      const Inode other{1 + prng.below(120)};
      const std::string name = "n" + std::to_string(prng.below(12));
      Change change;
      change.size = prng.below(100'000);
      static_cast<void>(files.fs.lookup(inode, name));
      static_cast<void>(files.fs.list(inode, 0, 100));
      static_cast<void>(files.fs.read(inode, 0, 200'000));
      static_cast<void>(files.fs.attribute_names(inode));
      switch (prng.below(7)) {
        case 0:
          static_cast<void>(files.fs.change(inode, change));
          break;
        case 1:
          static_cast<void>(files.fs.write(inode, prng.below(100'000), as_bytes(std::string(20'000, 'w'))));
          break;
        case 2:
          static_cast<void>(files.fs.unlink(inode, name));
          break;
        case 3:
          static_cast<void>(files.fs.rmdir(inode, name));
          break;
        case 4:
          static_cast<void>(files.fs.rename(inode, name, other, "n3", static_cast<RenameMode>(prng.below(3))));
          break;
        case 5:
          static_cast<void>(files.fs.make(inode, name, {S_IFDIR | 0755, kRoot, 0, {}}));
          break;
        default:
          static_cast<void>(files.fs.allocate(inode, prng.below(90'000), 1 + prng.below(90'000), AllocateMode::kZero));
      }
    }
    damaged += files.fs.counters().damaged;
  }
  EXPECT_GT(damaged, 1'000u);
}

}  // namespace
}  // namespace zz::execution::statefs::testing
