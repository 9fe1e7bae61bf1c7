#include "agreement/log_options.hpp"

#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/memtablerep.h>
#include <rocksdb/table.h>
#include <spdlog/spdlog.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <memory>

#include "agreement/wal_file.hpp"

namespace zz::agreement {
namespace {

constexpr std::size_t kWriteBufferBytes = 64u << 20;  // a change of buffers holds up promises for some ten milliseconds
constexpr std::size_t kBlockCacheBytes = 1u << 20;  // the log is read once, in order

// RocksDB's warnings go to our log; the rest of its chatter nowhere.
class QuietLogger final : public rocksdb::Logger {
 public:
  QuietLogger() : Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    std::array<char, 512> line{};
    std::vsnprintf(line.data(), line.size(), format, arguments);
    spdlog::warn("log: {}", line.data());
  }
};

}  // namespace

rocksdb::Options log_options() {
  rocksdb::Options options;
  options.env = wal_environment();
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kAbsoluteConsistency;  // wal_tail.hpp cut the torn end off
  options.track_and_verify_wals_in_manifest = true;
  options.paranoid_checks = true;
  options.compression = rocksdb::kNoCompression;
  options.write_buffer_size = kWriteBufferBytes;
  options.max_background_jobs = 2;
  options.disable_auto_compactions = true;                                   // not before all was read and found right
  options.max_bgerror_resume_count = 0;                                      // an error is for good
  options.memtable_factory = std::make_shared<rocksdb::VectorRepFactory>();  // nothing is read before the next start
  options.allow_concurrent_memtable_write = false;
  options.allow_fallocate = false;  // a log's length says how far it was written
  options.info_log = std::make_shared<QuietLogger>();
  options.bytes_per_sync = 1u << 20;  // a flush must not hold up the syncs of promises
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

}  // namespace zz::agreement
