#pragma once

// How the durable log (agreement/durable_log.hpp) uses RocksDB. Any thread.

#include <rocksdb/options.h>

namespace zz::agreement {

// For a log that is there; it is compacted only once its user has read it and allows that.
rocksdb::Options log_options();

}  // namespace zz::agreement
