#include <algorithm>
#include <cerrno>

#include "execution/statefs/file_data.hpp"
#include "execution/statefs/file_system.hpp"

namespace zz::execution::statefs {
namespace {

template <class T>
T with(const Outcome& outcome, T rest) {
  static_cast<Outcome&>(rest) = outcome;
  return rest;
}

}  // namespace

std::uint64_t Attributes::sectors() const {
  constexpr std::uint64_t kSector = 512;
  if (record.is_file() && !record.is_inline()) return std::uint64_t{record.blocks} * (kBlockBytes / kSector);
  return (record.size + kSector - 1) / kSector;
}

std::optional<Record> FileSystem::load_file(Transaction& tx, Inode inode) {
  std::optional<Record> record = load(tx, inode);
  if (!record) return std::nullopt;
  if (!record->is_file()) {
    tx.fail(record->is_directory() ? EISDIR : EINVAL);
    return std::nullopt;
  }
  return record;
}

AttributesOutcome FileSystem::stat(Inode inode) {
  Transaction tx = begin();
  std::optional<Record> record = load(tx, inode);
  if (!record) return with(tx.outcome(), AttributesOutcome{});
  return {{}, {inode, std::move(*record)}};
}

AttributesOutcome FileSystem::change(Inode inode, const Change& change) {
  Transaction tx = begin();
  std::optional<Record> record = change.size ? load_file(tx, inode) : load(tx, inode);
  if (!record) return with(tx.outcome(), AttributesOutcome{});
  if (change.size) {
    resize_data(tx, inode, *record, *change.size);
    record->modified = now_;
  }
  if (change.permissions) record->mode = (record->mode & kTypeMask) | (*change.permissions & 07777);
  record->uid = change.uid.value_or(record->uid);
  record->gid = change.gid.value_or(record->gid);
  if (change.accessed_now) record->accessed = now_;
  if (change.modified_now) record->modified = now_;
  record->modified = change.modified.value_or(record->modified);
  record->changed = now_;
  store(tx, inode, *record);
  const Outcome outcome = tx.commit();
  return with(outcome, AttributesOutcome{{}, {inode, std::move(*record)}});
}

BytesOutcome FileSystem::target(Inode inode) {
  Transaction tx = begin();
  const std::optional<Record> record = load(tx, inode);
  if (record && !record->is_link()) tx.fail(EINVAL);
  if (tx.failed()) return with(tx.outcome(), BytesOutcome{});
  return {{}, record->tail};
}

ReadOutcome FileSystem::read(Inode inode, std::uint64_t offset, std::uint64_t length) {
  Transaction tx = begin();
  const std::optional<Record> record = load_file(tx, inode);
  if (!record) return with(tx.outcome(), ReadOutcome{});
  ReadOutcome out;
  out.pieces = read_data(tx, inode, *record, offset, length);
  return with(tx.outcome(), std::move(out));
}

Outcome FileSystem::write(Inode inode, std::uint64_t offset, ByteView bytes) {
  Transaction tx = begin();
  std::optional<Record> record = load_file(tx, inode);
  if (!record || bytes.empty()) return tx.outcome();
  write_data(tx, inode, *record, offset, bytes);
  touch(*record);
  store(tx, inode, *record);
  return tx.commit();
}

Outcome FileSystem::allocate(Inode inode, std::uint64_t offset, std::uint64_t length, AllocateMode mode) {
  Transaction tx = begin();
  std::optional<Record> record = load_file(tx, inode);
  if (length == 0) tx.fail(EINVAL);
  if (!record || tx.failed()) return tx.outcome();
  const bool grows = mode != AllocateMode::kZero;
  if (grows && (offset > kFileBytesMax || length > kFileBytesMax - offset)) tx.fail(EFBIG);
  if (tx.failed()) return tx.outcome();
  if (mode != AllocateMode::kGrow) zero_data(tx, inode, *record, offset, length);
  if (grows && offset + length > record->size) resize_data(tx, inode, *record, offset + length);
  touch(*record);
  store(tx, inode, *record);
  return tx.commit();
}

OffsetOutcome FileSystem::seek(Inode inode, std::uint64_t offset, SeekTo to) {
  Transaction tx = begin();
  const std::optional<Record> record = load_file(tx, inode);
  if (!record) return with(tx.outcome(), OffsetOutcome{});
  const std::uint64_t found = seek_data(tx, inode, *record, offset, to == SeekTo::kHole);
  return with(tx.outcome(), OffsetOutcome{{}, found});
}

// ---- extended attributes

std::vector<Attribute> FileSystem::load_attributes(Transaction& tx, Inode inode, const Record& record,
                                                   SharedBytes& keep) {
  if (record.attributes == 0) return {};
  const std::optional<SharedBytes> bytes = tx.get(attributes_of(inode));
  if (tx.failed()) return {};
  std::optional<std::vector<Attribute>> attributes;
  if (bytes) attributes = decode_attributes(bytes->view());
  if (!attributes || attributes->size() != record.attributes) {
    tx.damaged();
    return {};
  }
  keep = *bytes;
  return std::move(*attributes);
}

namespace {

bool is_before(const Attribute& attribute, std::string_view name) { return attribute.name < name; }

// Where the attribute is, or would stand.
std::vector<Attribute>::iterator position(std::vector<Attribute>& attributes, std::string_view name) {
  return std::lower_bound(attributes.begin(), attributes.end(), name, is_before);
}

}  // namespace

BytesOutcome FileSystem::attribute(Inode inode, std::string_view name) {
  Transaction tx = begin();
  const std::optional<Record> record = load(tx, inode);
  if (!record) return with(tx.outcome(), BytesOutcome{});
  SharedBytes keep;
  std::vector<Attribute> attributes = load_attributes(tx, inode, *record, keep);
  const auto at = position(attributes, name);
  if (at == attributes.end() || at->name != name) {
    tx.fail(ENODATA);
    return with(tx.outcome(), BytesOutcome{});
  }
  const auto offset = static_cast<std::size_t>(at->value.data() - keep.data());
  return {{}, keep.slice(offset, at->value.size())};
}

NamesOutcome FileSystem::attribute_names(Inode inode) {
  Transaction tx = begin();
  const std::optional<Record> record = load(tx, inode);
  if (!record) return with(tx.outcome(), NamesOutcome{});
  SharedBytes keep;
  NamesOutcome out;
  for (const Attribute& attribute : load_attributes(tx, inode, *record, keep)) out.names.emplace_back(attribute.name);
  return with(tx.outcome(), std::move(out));
}

Outcome FileSystem::set_attribute(Inode inode, std::string_view name, ByteView value, AttributeMode mode) {
  Transaction tx = begin();
  if (name.empty() || name.size() > kNameBytesMax) tx.fail(ERANGE);
  if (value.size() > state::kObjectBytesMax) tx.fail(E2BIG);
  std::optional<Record> record = load(tx, inode);
  if (!record) return tx.outcome();
  SharedBytes keep;
  std::vector<Attribute> attributes = load_attributes(tx, inode, *record, keep);
  const auto at = position(attributes, name);
  const bool is_there = at != attributes.end() && at->name == name;
  if (is_there && mode == AttributeMode::kCreate) tx.fail(EEXIST);
  if (!is_there && mode == AttributeMode::kReplace) tx.fail(ENODATA);
  if (tx.failed()) return tx.outcome();
  if (is_there) {
    at->value = value;
  } else {
    attributes.insert(at, {name, value});
  }
  Bytes bytes = encode(attributes);
  if (bytes.size() > state::kObjectBytesMax) {
    tx.fail(ENOSPC);
    return tx.outcome();
  }
  tx.put(attributes_of(inode), std::move(bytes));
  record->attributes = static_cast<std::uint32_t>(attributes.size());
  record->changed = now_;
  store(tx, inode, *record);
  return tx.commit();
}

Outcome FileSystem::remove_attribute(Inode inode, std::string_view name) {
  Transaction tx = begin();
  std::optional<Record> record = load(tx, inode);
  if (!record) return tx.outcome();
  SharedBytes keep;
  std::vector<Attribute> attributes = load_attributes(tx, inode, *record, keep);
  const auto at = position(attributes, name);
  if (at == attributes.end() || at->name != name) tx.fail(ENODATA);
  if (tx.failed()) return tx.outcome();
  attributes.erase(at);
  if (attributes.empty()) {
    tx.erase(attributes_of(inode));
  } else {
    tx.put(attributes_of(inode), encode(attributes));
  }
  record->attributes = static_cast<std::uint32_t>(attributes.size());
  record->changed = now_;
  store(tx, inode, *record);
  return tx.commit();
}

}  // namespace zz::execution::statefs
