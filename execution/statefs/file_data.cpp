#include "execution/statefs/file_data.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

namespace zz::execution::statefs {
namespace {

const std::array<std::uint8_t, kBlockBytes> kZeros{};

std::uint64_t blocks_of(std::uint64_t size) { return (size + kBlockBytes - 1) / kBlockBytes; }

// A block's bytes as they are stored; an empty view: all zero.
SharedBytes block(Transaction& tx, Inode inode, const Record& record, std::uint64_t number) {
  if (record.is_inline()) return number == 0 ? record.tail : SharedBytes{};
  std::optional<SharedBytes> bytes = tx.get(block_of(inode, number));
  if (!bytes) return {};
  if (bytes->empty() || bytes->size() > kBlockBytes) {
    tx.damaged();
    return {};
  }
  return std::move(*bytes);
}

// `bytes` need not be stripped; `borrowed`: they live until the commit.
void put_block(Transaction& tx, Inode inode, Record& record, std::uint64_t number, ByteView bytes, bool borrowed) {
  bytes = without_trailing_zeros(bytes);
  if (record.is_inline()) {
    record.tail = bytes.empty() ? SharedBytes{} : SharedBytes::copy(bytes);
    return;
  }
  const ObjectId id = block_of(inode, number);
  const bool was_there = tx.exists(id);
  if (tx.failed()) return;
  if (was_there && record.blocks == 0) return tx.damaged();
  if (bytes.empty()) {
    if (was_there) tx.erase(id);
    record.blocks -= was_there ? 1 : 0;
    return;
  }
  record.blocks += was_there ? 0 : 1;
  if (borrowed) {
    tx.put_view(id, bytes);
  } else {
    tx.put(id, Bytes(bytes.begin(), bytes.end()));
  }
}

// Blocks [first, end) become zero.
void erase_blocks(Transaction& tx, Inode inode, Record& record, std::uint64_t first, std::uint64_t end) {
  if (first >= end || record.is_inline()) return;
  const ObjectId last = block_of(inode, end - 1);
  for (auto found = tx.next(block_of(inode, first), last); found; found = tx.next(found->id.next(), last)) {
    if (record.blocks == 0) return tx.damaged();
    tx.erase(found->id);
    --record.blocks;
  }
}

// Replaces [from, from + bytes.size()) of a block; within the file.
void change_block(Transaction& tx, Inode inode, Record& record, std::uint64_t number, std::uint64_t from,
                  ByteView bytes) {
  const std::uint64_t within = std::min<std::uint64_t>(record.size - number * kBlockBytes, kBlockBytes);
  if (from == 0 && bytes.size() >= within) return put_block(tx, inode, record, number, bytes, true);
  const SharedBytes before = block(tx, inode, record, number);
  if (tx.failed()) return;
  Bytes after(before.view().begin(), before.view().end());
  if (after.size() < from + bytes.size()) after.resize(from + bytes.size());
  std::copy(bytes.begin(), bytes.end(), after.begin() + static_cast<std::ptrdiff_t>(from));
  put_block(tx, inode, record, number, after, false);
}

}  // namespace

std::vector<SharedBytes> read_data(Transaction& tx, Inode inode, const Record& record, std::uint64_t offset,
                                   std::uint64_t length) {
  std::vector<SharedBytes> out;
  if (offset >= record.size || length == 0) return out;
  const std::uint64_t end = offset + std::min(length, record.size - offset);
  while (offset < end) {
    const std::uint64_t from = offset % kBlockBytes;
    const std::uint64_t size = std::min(kBlockBytes - from, end - offset);
    const SharedBytes bytes = block(tx, inode, record, offset / kBlockBytes);
    if (tx.outcome().missing.size() >= kMissingMax) break;
    const std::uint64_t stored = from < bytes.size() ? std::min(size, bytes.size() - from) : 0;
    if (stored > 0) out.push_back(bytes.slice(from, stored));
    if (stored < size) out.emplace_back(nullptr, ByteView(kZeros).first(size - stored));
    offset += size;
  }
  if (tx.failed()) out.clear();
  return out;
}

void write_data(Transaction& tx, Inode inode, Record& record, std::uint64_t offset, ByteView bytes) {
  if (bytes.empty()) return;
  if (offset > kFileBytesMax || bytes.size() > kFileBytesMax - offset) return tx.fail(EFBIG);
  const std::uint64_t old_size = record.size;
  if (offset + bytes.size() > old_size) resize_data(tx, inode, record, offset + bytes.size());
  while (!bytes.empty() && !tx.failed()) {
    const std::uint64_t from = offset % kBlockBytes;
    const std::uint64_t size = std::min<std::uint64_t>(kBlockBytes - from, bytes.size());
    change_block(tx, inode, record, offset / kBlockBytes, from, bytes.first(size));
    offset += size;
    bytes = bytes.subspan(size);
  }
}

void resize_data(Transaction& tx, Inode inode, Record& record, std::uint64_t size) {
  if (size > kFileBytesMax) return tx.fail(EFBIG);
  if (size < record.size) {
    erase_blocks(tx, inode, record, blocks_of(size), blocks_of(record.size));
    if (tx.failed()) return;
    const std::uint64_t last = size / kBlockBytes;
    const std::uint64_t keep = size % kBlockBytes;
    const bool was_inline = record.is_inline();
    if (keep > 0) {
      SharedBytes bytes = block(tx, inode, record, last);
      if (tx.failed()) return;
      if (bytes.size() > keep) bytes = bytes.slice(0, keep);
      if (!was_inline && size <= kInlineBytesMax) erase_blocks(tx, inode, record, 0, 1);
      record.size = size;
      put_block(tx, inode, record, last, bytes.view(), false);
    } else {
      if (record.is_inline() || size == 0) record.tail = {};
      record.size = size;
    }
    return;
  }
  if (record.is_inline() && size > kInlineBytesMax) {
    const SharedBytes bytes = std::exchange(record.tail, SharedBytes{});
    record.size = size;
    put_block(tx, inode, record, 0, bytes.view(), false);
    return;
  }
  record.size = size;
}

void zero_data(Transaction& tx, Inode inode, Record& record, std::uint64_t offset, std::uint64_t length) {
  if (offset >= record.size || length == 0) return;
  const std::uint64_t end = offset + std::min(length, record.size - offset);
  while (offset < end && !tx.failed()) {
    const std::uint64_t from = offset % kBlockBytes;
    if (from == 0 && end - offset >= kBlockBytes && !record.is_inline()) {
      const std::uint64_t first = offset / kBlockBytes;
      erase_blocks(tx, inode, record, first, end / kBlockBytes);
      offset = end / kBlockBytes * kBlockBytes;
      continue;
    }
    const std::uint64_t size = std::min(kBlockBytes - from, end - offset);
    if (record.is_inline() || tx.exists(block_of(inode, offset / kBlockBytes))) {
      change_block(tx, inode, record, offset / kBlockBytes, from, ByteView(kZeros).first(size));
    }
    offset += size;
  }
}

std::uint64_t seek_data(Transaction& tx, Inode inode, const Record& record, std::uint64_t offset, bool hole) {
  if (offset >= record.size) {
    tx.fail(ENXIO);
    return 0;
  }
  if (record.is_inline()) return hole ? record.size : offset;
  const std::uint64_t end = blocks_of(record.size);
  std::uint64_t number = offset / kBlockBytes;
  if (hole) {
    while (number < end && tx.exists(block_of(inode, number))) ++number;
    return std::min(std::max(offset, number * kBlockBytes), record.size);
  }
  const auto found = tx.next(block_of(inode, number), block_of(inode, end - 1));
  if (!found) {
    tx.fail(ENXIO);
    return 0;
  }
  number = (found->id.value & ((1u << kPartBits) - 1)) - kFirstBlock;
  return std::max(offset, number * kBlockBytes);
}

}  // namespace zz::execution::statefs
