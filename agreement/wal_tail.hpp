#pragma once

// What a power cut may do to the end of a log, and what it cannot have done.
//
// RocksDB's write-ahead log is a file of 32 KiB blocks of fragments: masked crc32c (4 bytes) of type and payload,
// length (2), type (1: whole record, 2, 3, 4: its first, middle and last fragment), payload. RocksDB's recovery modes
// either call a record that was torn while it was written corruption, or take corruption for the end of the log.
// Promises hang on the difference, so the files are looked at before RocksDB opens them:
//
//   - A last record that the end of the file cuts off, or that has a hole of sectors that were never written (zeros),
//     was torn: it was not synced, so nothing was promised by it. It is cut off.
//   - Zeros after the last record were never written (wal_file.hpp; no record ends in one). They are cut off.
//   - Everything else is damage: a checksum that does not fit over bytes that are there, a length that is wrong though
//     the payload is whole, anything at all with a record after it.
//
// Functions without state; any thread, while no RocksDB has the directory open.

#include <cstddef>
#include <string>

#include "base/bytes.hpp"

namespace zz::agreement {

struct WalVerdict {
  std::string damage;        // what is wrong; empty: whole, or made whole
  bool environment = false;  // `damage` is the machine's: the file cannot be read or cut
};

namespace wal {

struct Scan {
  std::size_t records = 0;
  std::size_t whole = 0;  // bytes up to the end of the last whole record
  bool torn = false;
  std::string damage;
};

// Of the bytes of one file.
Scan scan(ByteView file);

}  // namespace wal

// Cuts what follows the last whole record off the write-ahead log in this RocksDB directory.
WalVerdict trim_wal(const std::string& directory);

// Whether the directory holds anything that was ever written by RocksDB's users.
bool holds_data(const std::string& directory);

}  // namespace zz::agreement
