#pragma once

// A directory's entries: leaves of a binary trie over the names' hashes, each under the number of the last hash that it
// may hold, so that the store's next() finds the leaf of a name in one step, however large the directory is.
//
// Functions over a Transaction, one thread. What they give out views into objects lives as long as `keep`.

#include <string_view>
#include <vector>

#include "execution/statefs/transaction.hpp"

namespace zz::execution::statefs {

struct FoundEntry {
  Inode inode;
  std::uint8_t type = 0;
};

// Nothing: no such name, or the operation failed.
std::optional<FoundEntry> find_entry(Transaction& tx, Inode directory, std::string_view name);
// The name must not be there. ENOSPC: a name with an equal hash is, or its leaf cannot be halved any more.
void insert_entry(Transaction& tx, Inode directory, Record& record, std::string_view name, const FoundEntry& entry);
// The name must be there.
void remove_entry(Transaction& tx, Inode directory, Record& record, std::string_view name);
void replace_entry(Transaction& tx, Inode directory, std::string_view name, const FoundEntry& entry);

struct ListedEntry {
  std::string name;
  Inode inode;
  std::uint8_t type = 0;
  std::uint64_t offset = 0;  // list from here on to get what follows it
};
// Entries whose hashes are above `after`, in order, from one leaf at least; nothing: the end.
std::vector<ListedEntry> list_entries(Transaction& tx, Inode directory, std::uint64_t after, std::size_t limit);

}  // namespace zz::execution::statefs
