#pragma once

// A file's bytes: in its record up to kInlineBytesMax, in blocks above. Blocks of zeros are not stored, so a sparse
// file costs what is not zero in it, and the objects depend on the bytes alone.
//
// Functions over a Transaction, one thread. They change `record`; the caller writes it.

#include <vector>

#include "execution/statefs/transaction.hpp"

namespace zz::execution::statefs {

// What of [offset, offset + length) lies within the file, as pieces in order.
std::vector<SharedBytes> read_data(Transaction& tx, Inode inode, const Record& record, std::uint64_t offset,
                                   std::uint64_t length);
// EFBIG above kFileBytesMax. `bytes` must live until the commit.
void write_data(Transaction& tx, Inode inode, Record& record, std::uint64_t offset, ByteView bytes);
void resize_data(Transaction& tx, Inode inode, Record& record, std::uint64_t size);
// Zeroes what of the range lies within the file.
void zero_data(Transaction& tx, Inode inode, Record& record, std::uint64_t offset, std::uint64_t length);
// The next byte from `offset` on in a block that is stored (`hole` false) or not; ENXIO at or behind the end.
std::uint64_t seek_data(Transaction& tx, Inode inode, const Record& record, std::uint64_t offset, bool hole);

}  // namespace zz::execution::statefs
