#pragma once

// What the tests of the file system compare it with: nodes, maps and whole byte vectors.

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string>
#include <vector>

#include "execution/statefs/file_system.hpp"

namespace zz::execution::statefs::testing {

class ReferenceFiles {
 public:
  struct Node {
    std::uint32_t mode = 0, uid = 0, gid = 0;
    std::uint64_t links = 0;  // of names; a directory's are counted where they are asked for
    std::uint64_t parent = 0;
    Time accessed, modified, changed;
    std::string bytes;  // of a file or a symbolic link
    std::map<std::string, std::uint64_t> names;
    std::map<std::string, std::string> attributes;
    bool removed = false;
  };
  struct Answer {
    int error = 0;
    std::uint64_t inode = 0;
  };

  ReferenceFiles() {
    Node root;
    root.mode = S_IFDIR | 0755;
    root.parent = 1;
    nodes_[1] = root;
  }

  void set_time(Time now) { now_ = now; }
  Node* find(std::uint64_t inode) {
    const auto node = nodes_.find(inode);
    return node == nodes_.end() ? nullptr : &node->second;
  }
  [[nodiscard]] const std::map<std::uint64_t, Node>& nodes() const { return nodes_; }
  void hold(std::uint64_t inode) { ++held_[inode]; }
  void release(std::uint64_t inode) {
    const auto held = held_.find(inode);
    if (held == held_.end() || --held->second > 0) return;
    held_.erase(held);
    if (nodes_.contains(inode) && nodes_[inode].removed) nodes_.erase(inode);
  }
  [[nodiscard]] bool is_held(std::uint64_t inode) const { return held_.contains(inode); }

  Answer lookup(std::uint64_t directory, const std::string& name) {
    Node* const parent = find(directory);
    if (parent == nullptr) return {ESTALE};
    if (!S_ISDIR(parent->mode)) return {ENOTDIR};
    const auto at = parent->names.find(name);
    if (at == parent->names.end()) return {ENOENT};
    return {0, at->second};
  }

  Answer make(std::uint64_t directory, const std::string& name, std::uint32_t mode, const std::string& target = {}) {
    const Answer there = lookup(directory, name);
    if (there.error == 0) return {find(directory)->removed ? ENOENT : EEXIST};
    if (there.error != ENOENT || find(directory)->removed) return {there.error};
    const std::uint64_t inode = next_++;
    Node node;
    node.mode = mode;
    if ((find(directory)->mode & S_ISGID) != 0) {
      node.gid = find(directory)->gid;
      if (S_ISDIR(mode)) node.mode |= S_ISGID;
    }
    node.links = 1;
    node.bytes = target;
    node.parent = S_ISDIR(mode) ? directory : 0;
    node.accessed = node.modified = node.changed = now_;
    nodes_[inode] = node;
    add(directory, name, inode);
    return {0, inode};
  }

  int link(std::uint64_t inode, std::uint64_t directory, const std::string& name) {
    Node* const parent = find(directory);
    if (parent == nullptr) return ESTALE;
    if (!S_ISDIR(parent->mode)) return ENOTDIR;
    Node* const node = find(inode);
    if (node == nullptr) return ESTALE;
    if (S_ISDIR(node->mode)) return EPERM;
    if (node->removed || parent->removed) return ENOENT;
    if (parent->names.contains(name)) return EEXIST;
    ++node->links;
    node->changed = now_;
    add(directory, name, inode);
    return 0;
  }

  int unlink(std::uint64_t directory, const std::string& name) {
    const Answer there = lookup(directory, name);
    if (there.error != 0) return there.error;
    if (S_ISDIR(find(there.inode)->mode)) return EISDIR;
    remove(directory, name);
    drop(there.inode);
    return 0;
  }

  int rmdir(std::uint64_t directory, const std::string& name) {
    const Answer there = lookup(directory, name);
    if (there.error != 0) return there.error;
    if (!S_ISDIR(find(there.inode)->mode)) return ENOTDIR;
    if (!find(there.inode)->names.empty()) return ENOTEMPTY;
    remove(directory, name);
    drop(there.inode);
    return 0;
  }

  int rename(std::uint64_t from, const std::string& name, std::uint64_t to, const std::string& new_name,
             RenameMode mode) {
    for (const std::uint64_t directory : {from, to}) {
      if (find(directory) == nullptr) return ESTALE;
      if (!S_ISDIR(find(directory)->mode)) return ENOTDIR;
    }
    const Answer source = lookup(from, name);
    const Answer target = lookup(to, new_name);
    if (source.error != 0) return source.error;
    if (mode == RenameMode::kNoReplace && target.error == 0) return EEXIST;
    if (mode == RenameMode::kExchange && target.error != 0) return target.error;
    if (find(to)->removed) return ENOENT;
    if (target.error == 0 && target.inode == source.inode) return 0;
    const auto is_directory = [&](std::uint64_t inode) { return S_ISDIR(find(inode)->mode); };
    const auto is_below = [&](std::uint64_t inode, std::uint64_t above) {
      for (; inode != above && inode != 1; inode = find(inode)->parent) {
      }
      return inode == above;
    };
    if (is_directory(source.inode) && is_below(to, source.inode)) return EINVAL;
    if (mode == RenameMode::kExchange) {
      if (is_directory(target.inode) && is_below(from, target.inode)) return EINVAL;
      remove(from, name);
      remove(to, new_name);
      add(from, name, target.inode);
      add(to, new_name, source.inode);
      if (is_directory(target.inode)) find(target.inode)->parent = from;
      find(target.inode)->changed = now_;
    } else {
      if (target.error == 0) {
        if (is_directory(source.inode) && !is_directory(target.inode)) return ENOTDIR;
        if (!is_directory(source.inode) && is_directory(target.inode)) return EISDIR;
        if (is_directory(target.inode) && !find(target.inode)->names.empty()) return ENOTEMPTY;
        remove(to, new_name);
        drop(target.inode);
      }
      remove(from, name);
      add(to, new_name, source.inode);
    }
    if (is_directory(source.inode)) find(source.inode)->parent = to;
    find(source.inode)->changed = now_;
    return 0;
  }

  int file_error(std::uint64_t inode) {
    const Node* const node = find(inode);
    if (node == nullptr) return ESTALE;
    return S_ISREG(node->mode) ? 0 : S_ISDIR(node->mode) ? EISDIR : EINVAL;
  }
  int write(std::uint64_t inode, std::uint64_t offset, const std::string& bytes) {
    if (const int error = file_error(inode)) return error;
    if (bytes.empty()) return 0;
    Node& node = *find(inode);
    if (node.bytes.size() < offset + bytes.size()) node.bytes.resize(offset + bytes.size());
    node.bytes.replace(offset, bytes.size(), bytes);
    node.modified = node.changed = now_;
    return 0;
  }
  int resize(std::uint64_t inode, std::uint64_t size) {
    if (const int error = file_error(inode)) return error;
    find(inode)->bytes.resize(size);
    find(inode)->modified = find(inode)->changed = now_;
    return 0;
  }
  int allocate(std::uint64_t inode, std::uint64_t offset, std::uint64_t length, AllocateMode mode) {
    if (const int error = file_error(inode)) return error;
    Node& node = *find(inode);
    if (mode != AllocateMode::kGrow && offset < node.bytes.size()) {
      const std::uint64_t size = std::min(length, node.bytes.size() - offset);
      node.bytes.replace(offset, size, std::string(size, '\0'));
    }
    if (mode != AllocateMode::kZero && node.bytes.size() < offset + length) node.bytes.resize(offset + length);
    node.modified = node.changed = now_;
    return 0;
  }
  int set_attribute(std::uint64_t inode, const std::string& name, const std::string& value, AttributeMode mode) {
    Node* const node = find(inode);
    if (node == nullptr) return ESTALE;
    if (mode == AttributeMode::kCreate && node->attributes.contains(name)) return EEXIST;
    if (mode == AttributeMode::kReplace && !node->attributes.contains(name)) return ENODATA;
    node->attributes[name] = value;
    node->changed = now_;
    return 0;
  }
  int remove_attribute(std::uint64_t inode, const std::string& name) {
    Node* const node = find(inode);
    if (node == nullptr) return ESTALE;
    if (node->attributes.erase(name) == 0) return ENODATA;
    node->changed = now_;
    return 0;
  }

  [[nodiscard]] std::uint64_t links(std::uint64_t inode) {
    const Node& node = *find(inode);
    if (node.removed) return 0;
    if (!S_ISDIR(node.mode)) return node.links;
    std::uint64_t out = 2;
    for (const auto& [name, child] : node.names) out += S_ISDIR(find(child)->mode) ? 1 : 0;
    return out;
  }
  [[nodiscard]] Time now() const { return now_; }

 private:
  void add(std::uint64_t directory, const std::string& name, std::uint64_t inode) {
    find(directory)->names[name] = inode;
    find(directory)->modified = find(directory)->changed = now_;
  }
  void remove(std::uint64_t directory, const std::string& name) {
    find(directory)->names.erase(name);
    find(directory)->modified = find(directory)->changed = now_;
  }
  void drop(std::uint64_t inode) {
    Node& node = *find(inode);
    node.changed = now_;
    if (!S_ISDIR(node.mode) && --node.links > 0) return;
    node.removed = true;
    if (!is_held(inode)) nodes_.erase(inode);
  }

  std::map<std::uint64_t, Node> nodes_;
  std::map<std::uint64_t, int> held_;
  std::uint64_t next_ = 2;
  Time now_;
};

}  // namespace zz::execution::statefs::testing
