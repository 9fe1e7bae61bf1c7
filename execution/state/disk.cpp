#include "execution/state/disk.hpp"

#include <fmt/format.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "crypto/digest.hpp"

namespace zz::execution::state {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kManifestFormat = 1;
constexpr std::size_t kWriteBufferBytes = 32u << 20;
constexpr std::size_t kBlockCacheBytes = 8u << 20;
constexpr std::uint64_t kBlobBytesMin = 2'048;  // objects above it are not moved by compaction
constexpr std::uint64_t kWalBytesMax = 256ull << 20;
constexpr std::uint64_t kSyncEvery = 1ull << 20;  // else it is written in floods, and whoever needs the disk waits
constexpr char kManifestKey[] = "manifest";
constexpr char kPartKey[] = "part";
constexpr char kDoomedKey[] = "doomed";

// RocksDB's own log is a file under the same conditions as the rest: where the disk is full, this version asserts when
// it comes to a second line. What it says comes back as a status too.
class Silent : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

rocksdb::Options rocks_options() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;  // a prefix: invariants 1 and 2
  options.paranoid_checks = true;
  options.compression = rocksdb::kNoCompression;
  options.write_buffer_size = kWriteBufferBytes;
  options.max_total_wal_size = kWalBytesMax;
  options.max_background_jobs = 2;
  options.bytes_per_sync = options.wal_bytes_per_sync = kSyncEvery;
  options.max_bgerror_resume_count = 0;  // an error is for good
  options.enable_blob_files = true;
  options.min_blob_size = kBlobBytesMin;
  options.enable_blob_garbage_collection = true;
  options.blob_garbage_collection_force_threshold = 0.5;
  options.info_log = std::make_shared<Silent>();
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

using Key = std::array<char, 8>;

Key key_of(Record record) {
  Key key;
  for (std::size_t i = 0; i < 8; ++i) key[i] = static_cast<char>(record >> (56 - 8 * i));
  return key;
}

rocksdb::Slice slice(const Key& key) { return {key.data(), key.size()}; }
rocksdb::Slice slice(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
ByteView view(const rocksdb::Slice& value) {
  return {reinterpret_cast<const std::uint8_t*>(value.data()), value.size()};
}

void put_u64(Bytes& out, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

std::uint64_t get_u64(ByteView bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 8; i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

Digest checksum(ByteView bytes) { return crypto::DigestWriter("zz state manifest").bytes(bytes).finish(); }

Bytes encode_manifest(const Manifest& manifest) {
  Bytes out;
  put_u64(out, kManifestFormat);
  out.insert(out.end(), manifest.root.bytes.begin(), manifest.root.bytes.end());
  put_u64(out, manifest.top);
  put_u64(out, manifest.next_record);
  const Bytes image = encode(manifest.image);
  put_u64(out, image.size());
  out.insert(out.end(), image.begin(), image.end());
  out.insert(out.end(), manifest.label.begin(), manifest.label.end());
  const Digest sum = checksum(out);
  out.insert(out.end(), sum.bytes.begin(), sum.bytes.end());
  return out;
}

struct DecodedManifest {
  std::optional<Manifest> manifest;
  bool newer = false;
};

DecodedManifest decode_manifest(ByteView bytes) {
  constexpr std::size_t kFixed = 8 + 32 + 8 + 8 + 8;
  if (bytes.size() < kFixed + 32) return {};
  const ByteView body = bytes.first(bytes.size() - 32);
  if (!std::equal(bytes.begin() + static_cast<std::ptrdiff_t>(body.size()), bytes.end(),
                  checksum(body).bytes.begin())) {
    return {};
  }
  if (get_u64(body) != kManifestFormat) return {std::nullopt, true};
  Manifest manifest;
  std::copy_n(body.begin() + 8, 32, manifest.root.bytes.begin());
  manifest.top = get_u64(body.subspan(40));
  manifest.next_record = get_u64(body.subspan(48));
  const std::uint64_t length = get_u64(body.subspan(56));
  if (length > body.size() - kFixed) return {};
  const auto image = decode_root(body.subspan(kFixed, length));
  if (!image || root_digest(*image) != manifest.root) return {};
  manifest.image = *image;
  const ByteView label = body.subspan(kFixed + length);
  manifest.label.assign(label.begin(), label.end());
  return {std::move(manifest), false};
}

std::string way_out(const rocksdb::Status& status) {
  if (status.IsNoSpace() || status.ToString().find("No space") != std::string::npos) {
    return "free some space, then start again";
  }
  return "check the disk and the permissions, then start again";
}

}  // namespace

struct Disk::Rocks {
  ~Rocks() {
    for (rocksdb::ColumnFamilyHandle* handle : handles) {
      if (handle != nullptr) static_cast<void>(db->DestroyColumnFamilyHandle(handle));
    }
  }
  [[nodiscard]] rocksdb::ColumnFamilyHandle* records() const { return handles[0]; }
  [[nodiscard]] rocksdb::ColumnFamilyHandle* spilled() const { return handles[1]; }
  [[nodiscard]] rocksdb::ColumnFamilyHandle* meta() const { return handles[2]; }
  [[nodiscard]] rocksdb::ColumnFamilyHandle* family(Record record) const {
    return (record & kSpillBit) != 0 ? spilled() : records();
  }

  rocksdb::Status open(const std::string& directory);
  rocksdb::Status tidy(Record next_record);

  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::WriteBatch batch;
};

rocksdb::Status Disk::Rocks::open(const std::string& directory) {
  const rocksdb::Options options = rocks_options();
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (const std::string& name : {rocksdb::kDefaultColumnFamilyName, std::string("spill"), std::string("meta")}) {
    families.emplace_back(name, rocksdb::ColumnFamilyOptions(options));
  }
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, directory, families, &handles, &opened);
  db.reset(opened);
  return status;
}

// What no manifest knows goes.
rocksdb::Status Disk::Rocks::tidy(Record next_record) {
  rocksdb::Status status = db->DropColumnFamily(spilled());
  if (!status.ok()) return status;
  static_cast<void>(db->DestroyColumnFamilyHandle(handles[1]));
  handles[1] = nullptr;
  status = db->CreateColumnFamily(rocksdb::ColumnFamilyOptions(rocks_options()), "spill", &handles[1]);
  if (!status.ok()) return status;
  rocksdb::WriteBatch cleaning;
  std::string doomed;
  if (db->Get({}, meta(), kDoomedKey, &doomed).ok()) {
    const ByteView list = as_bytes(doomed);
    for (std::size_t i = 0; i + 8 <= list.size(); i += 8) {
      static_cast<void>(cleaning.Delete(records(), slice(key_of(get_u64(list.subspan(i))))));
    }
  }
  const Key from = key_of(next_record);
  const Key to = key_of(kSpillBit);
  static_cast<void>(cleaning.DeleteRange(records(), slice(from), slice(to)));
  static_cast<void>(cleaning.Delete(meta(), kDoomedKey));
  return db->Write({}, &cleaning);
}

Disk::Disk(std::string path, std::unique_ptr<Rocks> rocks) : path_(std::move(path)), rocks_(std::move(rocks)) {}
Disk::~Disk() = default;

Result<Disk::Opened> Disk::open(const std::string& path) {
  std::error_code failed;
  fs::create_directories(path, failed);
  if (failed) return Error{fmt::format("{}: cannot make the directory: {}", path, failed.message())};
  const std::string directory = path + "/objects";
  Opened opened;
  auto rocks = std::make_unique<Rocks>();
  rocksdb::Status status = rocks->open(directory);
  if (!status.ok()) {
    if (status.IsNoSpace() || (status.IsIOError() && !status.IsPathNotFound())) {
      return Error{fmt::format("{}: cannot open: {}; {}", directory, status.ToString(), way_out(status))};
    }
    const std::string aside = directory + ".damaged";
    rocks = std::make_unique<Rocks>();
    fs::remove_all(aside, failed);
    fs::rename(directory, aside, failed);
    if (failed) return Error{fmt::format("{}: damaged, and cannot be set aside: {}", directory, failed.message())};
    opened.damage = fmt::format("{}: {}; set aside as {}", directory, status.ToString(), aside);
    status = rocks->open(directory);
    if (!status.ok())
      return Error{fmt::format("{}: cannot make: {}; {}", directory, status.ToString(), way_out(status))};
  }
  std::string value;
  const rocksdb::Status found = rocks->db->Get({}, rocks->meta(), kManifestKey, &value);
  if (found.ok()) {
    DecodedManifest decoded = decode_manifest(as_bytes(value));
    if (decoded.newer) return Error{fmt::format("{}: written by a newer program; use that one", directory)};
    opened.manifest = std::move(decoded.manifest);
  }
  if (!opened.manifest && !found.IsNotFound()) {
    opened.damage =
        fmt::format("{}: the manifest is damaged: {}; the state counts as lost", directory, found.ToString());
  }
  // A part that is damaged is only work to be done again.
  if (rocks->db->Get({}, rocks->meta(), kPartKey, &value).ok()) opened.part = decode_manifest(as_bytes(value)).manifest;
  status = rocks->tidy(
      std::max(opened.manifest ? opened.manifest->next_record : 1, opened.part ? opened.part->next_record : 1));
  if (!status.ok())
    return Error{fmt::format("{}: cannot write: {}; {}", directory, status.ToString(), way_out(status))};
  opened.disk = std::unique_ptr<Disk>(new Disk(directory, std::move(rocks)));
  return opened;
}

std::optional<Bytes> Disk::get(Record record) const {
  rocksdb::PinnableSlice value;
  const rocksdb::Status status =
      rocks_->db->Get({}, rocks_->family(record), slice(key_of(record & ~kSpillBit)), &value);
  if (!status.ok()) return std::nullopt;
  const ByteView bytes = view(value);
  return Bytes(bytes.begin(), bytes.end());
}

std::optional<Record> Disk::spill(ByteView bytes) {
  if (failed()) return std::nullopt;
  const Record record = next_spill_.fetch_add(1);
  rocksdb::WriteOptions options;
  options.disableWAL = true;  // it is worth nothing after a crash
  const rocksdb::Status status = rocks_->db->Put(options, rocks_->spilled(), slice(key_of(record)), slice(bytes));
  if (status.ok()) return record | kSpillBit;
  fail(fmt::format("{}; {}", status.ToString(), way_out(status)));
  return std::nullopt;
}

void Disk::remove_spilled(const std::vector<Record>& records) {
  if (failed()) return;
  rocksdb::WriteBatch batch;
  for (const Record record : records) {
    static_cast<void>(batch.Delete(rocks_->spilled(), slice(key_of(record & ~kSpillBit))));
  }
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  const rocksdb::Status status = rocks_->db->Write(options, &batch);
  if (!status.ok()) fail(fmt::format("{}; {}", status.ToString(), way_out(status)));
}

void Disk::repair(Record record, ByteView bytes) {
  if (failed()) return;
  const rocksdb::Status status = rocks_->db->Put({}, rocks_->records(), slice(key_of(record)), slice(bytes));
  if (!status.ok()) fail(fmt::format("{}; {}", status.ToString(), way_out(status)));
}

void Disk::put(Record record, ByteView bytes) {
  static_cast<void>(rocks_->batch.Put(rocks_->records(), slice(key_of(record)), slice(bytes)));
}

void Disk::remove(Record record) { static_cast<void>(rocks_->batch.Delete(rocks_->records(), slice(key_of(record)))); }

void Disk::put_manifest(const Manifest& manifest) {
  static_cast<void>(rocks_->batch.Put(rocks_->meta(), kManifestKey, slice(encode_manifest(manifest))));
  static_cast<void>(rocks_->batch.Delete(rocks_->meta(), kPartKey));
}

void Disk::put_part(const Manifest& part) {
  static_cast<void>(rocks_->batch.Put(rocks_->meta(), kPartKey, slice(encode_manifest(part))));
}

void Disk::put_doomed(const std::vector<Record>& records) {
  Bytes list;
  list.reserve(records.size() * 8);
  for (const Record record : records) put_u64(list, record);
  static_cast<void>(rocks_->batch.Put(rocks_->meta(), kDoomedKey, slice(list)));
}

bool Disk::commit(bool sync) {
  if (failed()) return false;
  rocksdb::WriteOptions options;
  options.sync = sync;
  const rocksdb::Status status = rocks_->db->Write(options, &rocks_->batch);
  rocks_->batch.Clear();
  return status.ok() || fail(fmt::format("{}; {}", status.ToString(), way_out(status)));
}

bool Disk::fail(const std::string& what) {
  const std::lock_guard lock(error_mutex_);
  if (error_.empty()) error_ = fmt::format("{}: cannot write: {}", path_, what);
  failed_.store(true, std::memory_order_release);
  return false;
}

std::string Disk::error() const {
  const std::lock_guard lock(error_mutex_);
  return error_;
}

}  // namespace zz::execution::state
