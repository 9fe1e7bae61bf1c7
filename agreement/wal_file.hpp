#pragma once

// Write-ahead log files whose syncs are cheap: RocksDB's own file system, but a *.log file grows ahead of what is
// written, a few MiB of zeros at a time, and is written past the page cache, where the file system lets us. A sync then
// writes data over blocks that are there, and neither a new size nor new extents. What was not written is zeros, also
// after a power cut; no record ends in a zero (stored_values.hpp), and what follows the last one is cut off at the next
// start (wal_tail.hpp).
//
// For RocksDB only; its rules for threads.

#include <rocksdb/env.h>

namespace zz::agreement {

// Lives as long as the program, as RocksDB's own does.
rocksdb::Env* wal_environment();

}  // namespace zz::agreement
