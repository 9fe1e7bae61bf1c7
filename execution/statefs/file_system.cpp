#include "execution/statefs/file_system.hpp"

#include <cerrno>

namespace zz::execution::statefs {
namespace {

constexpr int kPathDepthMax = 100'000;  // a longer way to the root is a circle

bool is_dots(std::string_view name) { return name == "." || name == ".."; }

// Zero, or why the name is none.
int name_error(std::string_view name) {
  if (name.size() > kNameBytesMax) return ENAMETOOLONG;
  const bool good =
      !name.empty() && name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
  return good ? 0 : EINVAL;
}

std::uint8_t type_of(const Record& record) { return static_cast<std::uint8_t>(record.mode >> 12); }

template <class T>
T with(const Outcome& outcome, T rest) {
  static_cast<Outcome&>(rest) = outcome;
  return rest;
}

}  // namespace

FileSystem::FileSystem(state::ObjectStore& store, const Limits& limits)
    : store_(store), limits_(limits), replacements_(store.replacements()) {}

Transaction FileSystem::begin() {
  Transaction tx(store_, orphans_, limits_, counters_);
  if (!is_current()) tx.fail(ESTALE);
  return tx;
}

std::optional<Record> FileSystem::load(Transaction& tx, Inode inode) {
  const bool possible = inode.value >= kRootInode.value && inode.value <= kInodeMax;
  const std::optional<SharedBytes> bytes = possible ? tx.get(record_of(inode)) : std::nullopt;
  if (!bytes) {
    tx.fail(ESTALE);
    return std::nullopt;
  }
  std::optional<Record> record = decode_record(*bytes);
  if (!record) tx.damaged();
  return record;
}

std::optional<Record> FileSystem::load_directory(Transaction& tx, Inode inode) {
  std::optional<Record> record = load(tx, inode);
  if (!record) return std::nullopt;
  if (!record->is_directory()) {
    tx.fail(ENOTDIR);
    return std::nullopt;
  }
  return record;
}

void FileSystem::store(Transaction& tx, Inode inode, const Record& record) { tx.put(record_of(inode), encode(record)); }

void FileSystem::drop_link(Transaction& tx, Inode inode, Record& record) {
  record.links = record.is_directory() || record.links == 0 ? 0 : record.links - 1;
  record.changed = now_;
  store(tx, inode, record);
  if (record.links == 0) tx.bury(inode, held_.contains(inode.value));
}

void FileSystem::release(Inode inode) {
  const auto held = held_.find(inode.value);
  if (held == held_.end() || --held->second > 0) return;
  held_.erase(held);
  if (orphans_.inodes.erase(inode.value) == 0) return;
  const auto begin = orphans_.objects.lower_bound(record_of(inode).value);
  auto end = begin;
  for (; end != orphans_.objects.end() && inode_of(ObjectId{end->first}) == inode; ++end) {
    orphans_.bytes -= end->second.size();
  }
  orphans_.objects.erase(begin, end);
}

void FileSystem::replaced() {
  held_.clear();
  orphans_ = {};
  replacements_ = store_.replacements();
}

Usage FileSystem::usage() const {
  const state::Totals totals = store_.totals();
  return {totals.objects, limits_.objects_max, totals.bytes, limits_.bytes_max};
}

Outcome FileSystem::format(const Owner& owner, std::uint32_t permissions) {
  Transaction tx = begin();
  const bool is_there = tx.get(kSuperblock).has_value();
  if (is_there || tx.failed()) return tx.outcome();
  Record root;
  root.mode = kTypeDirectory | (permissions & 07777);
  root.uid = owner.uid;
  root.gid = owner.gid;
  root.links = 2;
  root.parent = kRootInode;
  root.accessed = root.modified = root.changed = now_;
  store(tx, kRootInode, root);
  tx.put(kSuperblock, encode(Superblock{kRootInode.next()}));
  return tx.commit();
}

// Who looks up what is absent mostly goes on to its bytes or names: they come with the same round trip. The operation
// itself does not wait for them.
void FileSystem::ask_along(Transaction& tx, const FoundEntry& entry) {
  if (entry.type == (kTypeFile >> 12)) {
    for (std::uint64_t i = 0; i < kBlocksAlong; ++i) static_cast<void>(tx.get(block_of(entry.inode, i)));
  } else if (entry.type == (kTypeDirectory >> 12)) {
    static_cast<void>(tx.get(leaf_of(entry.inode, kLastLeaf)));  // the only one of a small directory
  }
}

AttributesOutcome FileSystem::lookup(Inode directory, std::string_view name) {
  Transaction tx = begin();
  if (const int error = name_error(name)) tx.fail(error);
  const std::optional<Record> parent = load_directory(tx, directory);
  if (!parent) return with(tx.outcome(), AttributesOutcome{});
  FoundEntry entry{name == "." ? directory : parent->parent};
  if (!is_dots(name)) {
    const std::optional<FoundEntry> found = find_entry(tx, directory, name);
    if (!found) {
      tx.fail(ENOENT);
      return with(tx.outcome(), AttributesOutcome{});
    }
    entry = *found;
  }
  const Inode inode = entry.inode;
  std::optional<Record> record = load(tx, inode);
  if (!record) {
    ask_along(tx, entry);
    return with(tx.outcome(), AttributesOutcome{});
  }
  return {{}, {inode, std::move(*record)}};
}

AttributesOutcome FileSystem::make(Inode directory, std::string_view name, const NewInode& what) {
  Transaction tx = begin();
  if (const int error = is_dots(name) ? EEXIST : name_error(name)) tx.fail(error);
  std::optional<Record> parent = load_directory(tx, directory);
  if (parent && parent->links == 0) tx.fail(ENOENT);
  if (!tx.failed() && find_entry(tx, directory, name)) tx.fail(EEXIST);
  const std::optional<SharedBytes> bytes = tx.get(kSuperblock);
  std::optional<Superblock> superblock;
  if (bytes) superblock = decode_superblock(bytes->view());
  if (!superblock) tx.damaged();
  if (tx.failed()) return with(tx.outcome(), AttributesOutcome{});

  const Inode inode = superblock->next;
  Record record;
  record.mode = what.mode;
  record.uid = what.owner.uid;
  record.gid = what.owner.gid;
  record.links = 1;
  const std::uint32_t type = what.mode & kTypeMask;
  record.device = type == kTypeCharacterDevice || type == kTypeBlockDevice ? what.device : 0;
  record.accessed = record.modified = record.changed = now_;
  if ((parent->mode & kSetGroup) != 0) {
    record.gid = parent->gid;
    if (record.is_directory()) record.mode |= kSetGroup;
  }
  if (record.is_directory()) {
    record.links = 2;
    record.parent = directory;
    if (parent->links >= kLinksMax) tx.fail(EMLINK);
    ++parent->links;
  } else if (record.is_link()) {
    if (what.target.empty() || what.target.size() > kTargetBytesMax)
      tx.fail(what.target.empty() ? ENOENT : ENAMETOOLONG);
    record.size = what.target.size();
    record.tail = SharedBytes::copy(what.target);
  }
  if (inode.value > kInodeMax) tx.fail(ENOSPC);
  if (tx.failed()) return with(tx.outcome(), AttributesOutcome{});

  insert_entry(tx, directory, *parent, name, {inode, type_of(record)});
  touch(*parent);
  store(tx, directory, *parent);
  store(tx, inode, record);
  tx.put(kSuperblock, encode(Superblock{inode.next()}));
  const Outcome outcome = tx.commit();
  return with(outcome, AttributesOutcome{{}, {inode, std::move(record)}});
}

AttributesOutcome FileSystem::link(Inode inode, Inode directory, std::string_view name) {
  Transaction tx = begin();
  if (const int error = is_dots(name) ? EEXIST : name_error(name)) tx.fail(error);
  std::optional<Record> parent = load_directory(tx, directory);
  std::optional<Record> record = load(tx, inode);
  if (!parent || !record) return with(tx.outcome(), AttributesOutcome{});
  if (record->is_directory()) tx.fail(EPERM);
  if (record->links == 0 || parent->links == 0) tx.fail(ENOENT);
  if (record->links >= kLinksMax) tx.fail(EMLINK);
  if (!tx.failed()) insert_entry(tx, directory, *parent, name, {inode, type_of(*record)});
  ++record->links;
  record->changed = now_;
  touch(*parent);
  store(tx, directory, *parent);
  store(tx, inode, *record);
  const Outcome outcome = tx.commit();
  return with(outcome, AttributesOutcome{{}, {inode, std::move(*record)}});
}

Outcome FileSystem::unlink(Inode directory, std::string_view name) {
  Transaction tx = begin();
  if (const int error = is_dots(name) ? EISDIR : name_error(name)) tx.fail(error);
  std::optional<Record> parent = load_directory(tx, directory);
  const std::optional<FoundEntry> entry = parent ? find_entry(tx, directory, name) : std::nullopt;
  if (!entry) tx.fail(ENOENT);
  std::optional<Record> record = entry ? load(tx, entry->inode) : std::nullopt;
  if (record && record->is_directory()) tx.fail(EISDIR);
  if (tx.failed()) return tx.outcome();
  remove_entry(tx, directory, *parent, name);
  touch(*parent);
  store(tx, directory, *parent);
  drop_link(tx, entry->inode, *record);
  return tx.commit();
}

Outcome FileSystem::rmdir(Inode directory, std::string_view name) {
  Transaction tx = begin();
  if (const int error = name == "." ? EINVAL : name == ".." ? ENOTEMPTY : name_error(name)) tx.fail(error);
  std::optional<Record> parent = load_directory(tx, directory);
  const std::optional<FoundEntry> entry = parent ? find_entry(tx, directory, name) : std::nullopt;
  if (!entry) tx.fail(ENOENT);
  std::optional<Record> record = entry ? load_directory(tx, entry->inode) : std::nullopt;
  if (record && record->size != 0) tx.fail(ENOTEMPTY);
  if (tx.failed()) return tx.outcome();
  remove_entry(tx, directory, *parent, name);
  if (parent->links > 2) --parent->links;
  touch(*parent);
  store(tx, directory, *parent);
  drop_link(tx, entry->inode, *record);
  return tx.commit();
}

bool FileSystem::is_below(Transaction& tx, Inode inode, Inode directory) {
  for (int depth = 0; depth < kPathDepthMax; ++depth) {
    if (inode == directory) return true;
    if (inode == kRootInode) return false;
    const std::optional<Record> record = load_directory(tx, inode);
    if (!record) return false;
    inode = record->parent;
  }
  tx.damaged();
  return false;
}

// One end of a rename: a directory, a name in it, and what is there.
struct FileSystem::Side {
  Inode directory;
  Record* record;  // of the directory; both sides may share it
  std::string_view name;
  std::optional<FoundEntry> entry;
  std::optional<Record> inode;  // the entry's
  [[nodiscard]] bool has_directory() const { return inode && inode->is_directory(); }
};

Outcome FileSystem::rename(Inode from, std::string_view name, Inode to, std::string_view new_name, RenameMode mode) {
  Transaction tx = begin();
  if (is_dots(name) || is_dots(new_name)) tx.fail(EBUSY);
  if (const int error = name_error(name)) tx.fail(error);
  if (const int error = name_error(new_name)) tx.fail(error);
  std::optional<Record> from_record = load_directory(tx, from);
  std::optional<Record> to_record = load_directory(tx, to);
  if (!from_record || !to_record) return tx.outcome();
  Side source{from, &*from_record, name, find_entry(tx, from, name), {}};
  Side target{to, from == to ? &*from_record : &*to_record, new_name, find_entry(tx, to, new_name), {}};
  if (!source.entry) tx.fail(ENOENT);
  if (mode == RenameMode::kNoReplace && target.entry) tx.fail(EEXIST);
  if (mode == RenameMode::kExchange && !target.entry) tx.fail(ENOENT);
  if (target.record->links == 0) tx.fail(ENOENT);
  if (tx.failed()) return tx.outcome();
  if (target.entry && target.entry->inode == source.entry->inode) return {};  // two names of one file

  source.inode = load(tx, source.entry->inode);
  if (target.entry) target.inode = load(tx, target.entry->inode);
  if (tx.failed()) return tx.outcome();
  if (source.has_directory() && is_below(tx, to, source.entry->inode)) tx.fail(EINVAL);
  if (mode == RenameMode::kExchange && target.has_directory() && is_below(tx, from, target.entry->inode)) {
    tx.fail(EINVAL);
  }
  if (mode == RenameMode::kExchange) {
    exchange(tx, source, target);
  } else {
    rename_over(tx, source, target);
  }
  touch(*source.record);
  touch(*target.record);
  store(tx, from, *source.record);
  if (from != to) store(tx, to, *target.record);
  return tx.commit();
}

void FileSystem::rename_over(Transaction& tx, Side& from, Side& to) {
  if (to.inode) {
    if (from.has_directory() && !to.has_directory()) return tx.fail(ENOTDIR);
    if (!from.has_directory() && to.has_directory()) return tx.fail(EISDIR);
    if (to.has_directory() && to.inode->size != 0) return tx.fail(ENOTEMPTY);
  }
  if (tx.failed()) return;
  if (from.has_directory()) {
    --from.record->links;
    if (to.record->links >= kLinksMax) return tx.fail(EMLINK);
    ++to.record->links;
    from.inode->parent = to.directory;
  }
  remove_entry(tx, from.directory, *from.record, from.name);
  if (to.entry) {
    replace_entry(tx, to.directory, to.name, *from.entry);
    if (to.has_directory()) --to.record->links;
    drop_link(tx, to.entry->inode, *to.inode);
  } else {
    insert_entry(tx, to.directory, *to.record, to.name, *from.entry);
  }
  from.inode->changed = now_;
  store(tx, from.entry->inode, *from.inode);
}

void FileSystem::exchange(Transaction& tx, Side& from, Side& to) {
  if (tx.failed()) return;
  replace_entry(tx, from.directory, from.name, *to.entry);
  replace_entry(tx, to.directory, to.name, *from.entry);
  if (from.has_directory()) {
    --from.record->links;
    ++to.record->links;
    from.inode->parent = to.directory;
  }
  if (to.has_directory()) {
    --to.record->links;
    ++from.record->links;
    to.inode->parent = from.directory;
  }
  from.inode->changed = to.inode->changed = now_;
  store(tx, from.entry->inode, *from.inode);
  store(tx, to.entry->inode, *to.inode);
}

ListOutcome FileSystem::list(Inode directory, std::uint64_t after, std::size_t limit) {
  Transaction tx = begin();
  const std::optional<Record> record = load_directory(tx, directory);
  if (!record) return with(tx.outcome(), ListOutcome{});
  ListOutcome out;
  constexpr std::uint8_t kDirectory = kTypeDirectory >> 12;
  if (after < 1) out.entries.push_back({".", directory, kDirectory, 1});
  if (after < 2) out.entries.push_back({"..", record->parent, kDirectory, 2});
  for (ListedEntry& entry : list_entries(tx, directory, std::max<std::uint64_t>(after, 2), limit)) {
    out.entries.push_back(std::move(entry));
  }
  if (tx.failed()) out.entries.clear();
  return with(tx.outcome(), std::move(out));
}

}  // namespace zz::execution::statefs
