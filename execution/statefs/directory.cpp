#include "execution/statefs/directory.hpp"

#include <algorithm>
#include <cerrno>

namespace zz::execution::statefs {
namespace {

struct LoadedLeaf {
  SharedBytes keep;  // what the names view into
  Leaf leaf;
  [[nodiscard]] std::vector<Entry>::iterator position(std::uint64_t hash) {
    return std::lower_bound(leaf.entries.begin(), leaf.entries.end(), hash,
                            [](const Entry& entry, std::uint64_t than) { return entry.hash < than; });
  }
  // The entry, or the end.
  [[nodiscard]] std::vector<Entry>::iterator find(std::uint64_t hash, std::string_view name) {
    const auto at = position(hash);
    return at != leaf.entries.end() && at->hash == hash && at->name == name ? at : leaf.entries.end();
  }
};

std::optional<LoadedLeaf> decode(Transaction& tx, ObjectId id) {
  const std::optional<SharedBytes> bytes = tx.get(id);
  if (!bytes) return std::nullopt;
  const auto last = static_cast<std::uint32_t>(id.value) & kLastLeaf;
  std::optional<Leaf> leaf = decode_leaf(bytes->view(), last);
  if (!leaf) {
    tx.damaged();
    return std::nullopt;
  }
  return LoadedLeaf{*bytes, std::move(*leaf)};
}

// The leaf that holds the number; nothing: the directory is empty, or the operation failed.
std::optional<LoadedLeaf> load_leaf(Transaction& tx, Inode directory, std::uint32_t number) {
  const auto found = tx.next(leaf_of(directory, number), leaf_of(directory, kLastLeaf));
  if (!found) return std::nullopt;
  std::optional<LoadedLeaf> out = decode(tx, found->id);
  if (out && out->leaf.first > number) {
    tx.damaged();
    return std::nullopt;
  }
  return out;
}

// Halves it until its parts are small enough. The part with the last hash replaces the leaf that was.
void store_leaf(Transaction& tx, Inode directory, const Leaf& leaf) {
  const std::uint32_t bytes = leaf.bytes();
  if (bytes <= kLeafBytesMax || leaf.depth == kLeafDepthMax) {
    if (kLeafHeaderBytes + bytes > state::kObjectBytesMax) {
      tx.fail(ENOSPC);
      return;
    }
    tx.put(leaf_of(directory, leaf.last()), encode(leaf));
    return;
  }
  Leaf left{leaf.depth + 1, leaf.first, {}};
  Leaf right{leaf.depth + 1, left.last() + 1, {}};
  for (const Entry& entry : leaf.entries) {
    (leaf_number(entry.hash) <= left.last() ? left : right).entries.push_back(entry);
  }
  store_leaf(tx, directory, left);
  store_leaf(tx, directory, right);
}

// Joins a leaf that shrank with its other half, and the outcome with its own, while both fit in one.
void store_shrunk_leaf(Transaction& tx, Inode directory, Leaf leaf) {
  std::vector<SharedBytes> keep;
  while (leaf.depth > 0) {
    const std::uint32_t half = 1u << (kLeafDepthMax - leaf.depth);
    const std::uint32_t other_first = leaf.first ^ half;
    const std::uint32_t other_last = other_first | (half - 1);
    const auto found = tx.next(leaf_of(directory, other_first), leaf_of(directory, other_last));
    if (tx.failed()) return;
    if (!found || found->length < kLeafHeaderBytes) return tx.damaged();
    if (found->id != leaf_of(directory, other_last)) break;  // it is in halves itself
    if (leaf.bytes() + (found->length - kLeafHeaderBytes) > kLeafBytesMax) break;
    std::optional<LoadedLeaf> other = decode(tx, found->id);
    if (!other) return;
    if (other->leaf.depth != leaf.depth) return tx.damaged();
    keep.push_back(other->keep);
    Leaf& left = leaf.first < other_first ? leaf : other->leaf;
    Leaf& right = leaf.first < other_first ? other->leaf : leaf;
    tx.erase(leaf_of(directory, left.last()));
    left.entries.insert(left.entries.end(), right.entries.begin(), right.entries.end());
    leaf = Leaf{left.depth - 1, left.first, std::move(left.entries)};
  }
  if (leaf.entries.empty() && leaf.depth == 0) {
    tx.erase(leaf_of(directory, leaf.last()));
  } else {
    tx.put(leaf_of(directory, leaf.last()), encode(leaf));
  }
}

}  // namespace

std::optional<FoundEntry> find_entry(Transaction& tx, Inode directory, std::string_view name) {
  const std::uint64_t hash = hash_of(name);
  std::optional<LoadedLeaf> loaded = load_leaf(tx, directory, leaf_number(hash));
  if (!loaded) return std::nullopt;
  const auto at = loaded->find(hash, name);
  if (at == loaded->leaf.entries.end()) return std::nullopt;
  return FoundEntry{at->inode, at->type};
}

void insert_entry(Transaction& tx, Inode directory, Record& record, std::string_view name, const FoundEntry& entry) {
  const std::uint64_t hash = hash_of(name);
  std::optional<LoadedLeaf> loaded = load_leaf(tx, directory, leaf_number(hash));
  if (tx.failed()) return;
  if (!loaded) loaded.emplace();
  const auto at = loaded->position(hash);
  if (at != loaded->leaf.entries.end() && at->hash == hash) return tx.fail(at->name == name ? EEXIST : ENOSPC);
  loaded->leaf.entries.insert(at, Entry{hash, entry.inode, entry.type, name});
  record.size += entry_bytes(name.size());
  store_leaf(tx, directory, loaded->leaf);
}

void remove_entry(Transaction& tx, Inode directory, Record& record, std::string_view name) {
  const std::uint64_t hash = hash_of(name);
  std::optional<LoadedLeaf> loaded = load_leaf(tx, directory, leaf_number(hash));
  if (tx.failed()) return;
  if (!loaded) return tx.fail(ENOENT);
  const auto at = loaded->find(hash, name);
  if (at == loaded->leaf.entries.end()) return tx.fail(ENOENT);
  if (record.size < entry_bytes(name.size())) return tx.damaged();
  loaded->leaf.entries.erase(at);
  record.size -= entry_bytes(name.size());
  store_shrunk_leaf(tx, directory, std::move(loaded->leaf));
}

void replace_entry(Transaction& tx, Inode directory, std::string_view name, const FoundEntry& entry) {
  const std::uint64_t hash = hash_of(name);
  std::optional<LoadedLeaf> loaded = load_leaf(tx, directory, leaf_number(hash));
  if (tx.failed()) return;
  if (!loaded) return tx.fail(ENOENT);
  const auto at = loaded->find(hash, name);
  if (at == loaded->leaf.entries.end()) return tx.fail(ENOENT);
  at->inode = entry.inode;
  at->type = entry.type;
  tx.put(leaf_of(directory, loaded->leaf.last()), encode(loaded->leaf));
}

std::vector<ListedEntry> list_entries(Transaction& tx, Inode directory, std::uint64_t after, std::size_t limit) {
  std::vector<ListedEntry> out;
  std::uint64_t number = leaf_number(after);
  while (number <= kLastLeaf && out.size() < limit) {
    std::optional<LoadedLeaf> loaded = load_leaf(tx, directory, static_cast<std::uint32_t>(number));
    if (!loaded) break;
    for (const Entry& entry : loaded->leaf.entries) {
      if (entry.hash > after) out.push_back({std::string(entry.name), entry.inode, entry.type, entry.hash});
    }
    number = std::uint64_t{loaded->leaf.last()} + 1;
  }
  return out;
}

}  // namespace zz::execution::statefs
