#include "agreement/durable_log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>
#include <sodium.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "agreement/boot_record.hpp"
#include "agreement/log_options.hpp"
#include "agreement/record_codec.hpp"
#include "agreement/stored_values.hpp"
#include "agreement/wal_tail.hpp"

namespace zz::agreement {
namespace {

namespace fs = std::filesystem;
using namespace stored;

// The boot record follows the promises at this pace: what a rolled back log may lack and still look whole.
constexpr std::uint64_t kBootEveryPromises = 1'024;
constexpr std::chrono::seconds kBootEvery{1};

// A record that was written under other limits is still ours; the checksum vouches for it.
CodecLimits any_limits() {
  CodecLimits limits;
  limits.op_bytes_max = std::numeric_limits<std::uint32_t>::max();
  limits.batch_requests_max = 1u << 20;
  return limits;
}

// ---- RocksDB

std::string way_out(const rocksdb::Status& status) {
  if (status.IsNoSpace() || status.ToString().find("No space") != std::string::npos) {
    return "free some space, then start the node again";
  }
  if (status.IsCorruption()) return "check the disk; started again, the node judges what is left";
  return "check the disk and the permissions, then start the node again";
}

Error write_error(const std::string& path, const rocksdb::Status& status) {
  return Error{fmt::format("{}: cannot write the log: {}; nothing more was promised; {}", path, status.ToString(),
                           way_out(status))};
}

// Why a log that is there cannot be used: it is damaged, or the machine does not let us (an Error for the caller).
struct Trouble {
  bool damaged = true;
  std::string text;
};

Trouble read_trouble(const std::string& path, const rocksdb::Status& status) {
  const bool environment = status.IsNoSpace() || (status.IsIOError() && !status.IsPathNotFound());
  if (environment) {
    return {false, fmt::format("{}: cannot read the log: {}; {}", path, status.ToString(), way_out(status))};
  }
  return {true, status.ToString()};
}

// DATA/lock, held.
class Lock {
 public:
  static Result<Lock> take(const std::string& path) {
    const std::string file = path + "/lock";
    const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return Error{fmt::format("{}: cannot open: {}", file, std::strerror(errno))};
    Lock lock(fd);
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return lock;
    return Error{fmt::format("{}: in use by another process; stop the other node first", path)};
  }
  Lock(Lock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Lock& operator=(Lock&&) = delete;
  ~Lock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  explicit Lock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace

// ---- the log

struct DurableLog::State {
  State(DurableLogOptions its_options, Lock held) : options(std::move(its_options)), lock(std::move(held)) {}

  // What a later record of the service may replace, delete or leave out.
  struct Service {
    Seq ordered;
    Seq stable;
    std::map<std::pair<Seq, Digest>, std::size_t> contents;  // above stable: 1 + bodies that are there
    std::map<Seq, Digest> chosen;                            // ordered above stable
  };

  [[nodiscard]] std::string log_path() const { return options.path + "/log"; }
  [[nodiscard]] Owner owner() const { return {options.cluster, options.node}; }

  void put(const std::string& key, std::string_view value);
  void remove(const std::string& key);
  void forget(const std::string& key) { live.erase(key); }  // it stays for good
  void add(ServiceId id, const AcceptedRecord& record);
  void add(ServiceId id, const OrderedRecord& record);
  void add(ServiceId id, const StableRecord& record);
  void drop_below(ServiceId id, Seq stable);

  Result<void> create(const BootRecord& last, bool learners);
  std::optional<Trouble> load(std::vector<Recovered>& out);
  std::optional<Trouble> load_meta();
  std::optional<std::string> load_record(const Key& key, std::string_view value, std::vector<LogImage>& images);
  Result<void> start_boot(std::uint64_t boot);
  Result<void> write_group(bool sync);
  Result<void> follow_up();

  DurableLogOptions options;
  Lock lock;
  std::unique_ptr<rocksdb::DB> db;
  Meta meta;
  std::vector<Service> services;
  std::map<std::string, Sum> live;  // records that may still be replaced or deleted
  rocksdb::WriteBatch batch;
  bool promise = false;         // in the group
  std::uint64_t witnessed = 0;  // promises in the boot record
  std::chrono::steady_clock::time_point witnessed_at;
  std::optional<std::string> failed;
  // While loading: contents by (n, digest), of the service whose records are read.
  std::map<std::pair<Seq, Digest>, OrderedRecord> loading;
  ServiceId loading_service;
};

void DurableLog::State::put(const std::string& key, std::string_view value) {
  const Sum sum = sum_of(owner(), key, value);
  const std::string tail = tail_of(sum);
  const rocksdb::Slice parts[] = {rocksdb::Slice(value.data(), value.size()), rocksdb::Slice(tail)};
  const rocksdb::Slice key_part(key);
  batch.Put(rocksdb::SliceParts(&key_part, 1), rocksdb::SliceParts(parts, 2));
  if (key == kMetaKey) return;
  Sum& kept = live[key];
  meta.sum.take(kept);
  meta.sum.add(sum);
  kept = sum;
}

void DurableLog::State::remove(const std::string& key) {
  const auto found = live.find(key);
  if (found == live.end()) return;
  batch.Delete(key);  // before the erasure: `key` may be the map's own
  meta.sum.take(found->second);
  live.erase(found);
}

void DurableLog::State::add(ServiceId id, const AcceptedRecord& record) {
  Service& service = services[id.value];
  if (record.n <= service.stable) return;
  put(to_bytes({id, Kind::kAccepted, record.n, record.digest}), packed(record.view));
  if (!record.header) return;
  std::size_t weight = 1;
  for (const RequestPtr& body : record.bodies) weight += body ? 1 : 0;
  std::size_t& kept = service.contents[{record.n, record.digest}];
  if (weight <= kept) return;
  kept = weight;
  put(to_bytes({id, Kind::kContent, record.n, record.digest}), encode_record(id, record).text());
}

void DurableLog::State::add(ServiceId id, const OrderedRecord& record) {
  Service& service = services[id.value];
  if (record.n <= service.ordered) return;
  ZZ_ASSERT(record.n == service.ordered.next());
  service.ordered = record.n;
  const std::string content = to_bytes({id, Kind::kContent, record.n, record.digest});
  const std::string ordered = to_bytes({id, Kind::kOrdered, record.n, {}});
  const auto kept = service.contents.find({record.n, record.digest});
  if (kept == service.contents.end() || kept->second < 1 + record.requests.size()) {
    put(content, encode_record(id, record).text());
  }
  put(ordered, packed(record.digest));
  if (record.n > service.stable) {
    service.contents[{record.n, record.digest}] = 1 + record.requests.size();
    service.chosen[record.n] = record.digest;
  } else {
    forget(content);
    forget(ordered);
  }
}

void DurableLog::State::add(ServiceId id, const StableRecord& record) {
  if (!record.certificate) return;
  const Seq n = record.certificate->state.n;
  const std::string key = to_bytes({id, Kind::kStable, n, {}});
  if (!live.contains(key)) put(key, encode_record(id, record).text());
  if (n > services[id.value].stable) drop_below(id, n);
}

// What was ordered stays; the rest up to the stable checkpoint goes.
void DurableLog::State::drop_below(ServiceId id, Seq stable) {
  Service& service = services[id.value];
  service.stable = stable;
  for (const Kind kind : {Kind::kAccepted, Kind::kPrepared}) {
    const std::string end = to_bytes({id, kind, stable.next(), {}});
    for (auto at = live.lower_bound(to_bytes({id, kind, {}, {}})); at != live.end() && at->first < end;) {
      remove((at++)->first);
    }
  }
  for (auto at = service.contents.begin(); at != service.contents.end() && at->first.first <= stable;) {
    const auto& [n, digest] = at->first;
    const auto chosen = service.chosen.find(n);
    const std::string content = to_bytes({id, Kind::kContent, n, digest});
    if (chosen != service.chosen.end() && chosen->second == digest) {
      forget(content);
    } else {
      remove(content);
    }
    at = service.contents.erase(at);
  }
  while (!service.chosen.empty() && service.chosen.begin()->first <= stable) {
    forget(to_bytes({id, Kind::kOrdered, service.chosen.begin()->first, {}}));
    service.chosen.erase(service.chosen.begin());
  }
}

Result<void> DurableLog::State::write_group(bool sync) {
  put(kMetaKey, meta.bytes());
  rocksdb::WriteOptions write;
  write.sync = sync;
  const rocksdb::Status status = db->Write(write, &batch);
  batch.Clear();
  promise = false;
  if (!status.ok()) return write_error(options.path, status);
  return {};
}

// Tells the boot record how many promises the log holds.
Result<void> DurableLog::State::follow_up() {
  if (!options.sync) {
    if (const rocksdb::Status status = db->SyncWAL(); !status.ok()) return write_error(options.path, status);
  }
  witnessed = meta.promises;
  witnessed_at = std::chrono::steady_clock::now();
  return write_boot_record(options.path, {options.cluster, options.node, meta.boot, meta.id, meta.promises});
}

// The log first: a boot record is never ahead of it.
Result<void> DurableLog::State::start_boot(std::uint64_t boot) {
  meta.boot = boot;
  randombytes_buf(meta.id.data(), meta.id.size());
  if (auto written = write_group(true); !written) return written;
  return follow_up();
}

Result<void> DurableLog::State::create(const BootRecord& last, bool learners) {
  rocksdb::Options options_for_new = log_options();
  options_for_new.create_if_missing = true;
  options_for_new.error_if_exists = true;
  options_for_new.disable_auto_compactions = false;
  std::error_code error;
  fs::create_directory(log_path(), error);
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options_for_new, log_path(), &opened);
  if (!status.ok()) return write_error(options.path, status);
  db.reset(opened);
  if (auto synced = sync_directory(options.path); !synced) return synced;
  meta = {};
  meta.cluster = options.cluster;
  meta.node = options.node;
  meta.promises = last.promises;  // what comes is counted on from what was promised before
  services.assign(options.services, {});
  for (std::uint16_t i = 0; learners && i < options.services; ++i) {
    put(to_bytes({ServiceId{i}, Kind::kLearner, {}, {}}), "");
  }
  return start_boot(last.boot + 1);
}

// ---- reading

std::optional<Trouble> DurableLog::State::load_meta() {
  std::string stored;
  const rocksdb::Status status = db->Get(rocksdb::ReadOptions(), kMetaKey, &stored);
  if (status.IsNotFound()) return Trouble{true, "it has no head record"};
  if (!status.ok()) return read_trouble(options.path, status);
  // Its format and whose it is come first: those are mistakes of people, and nothing is damaged.
  std::uint32_t format = 0;
  if (stored.size() < sizeof format) return Trouble{true, "its head record does not decode"};
  std::memcpy(&format, stored.data(), sizeof format);
  if (format != kFormat) {
    return Trouble{false,
                   fmt::format("{}: the log has format {}, this program knows {}; start the program that wrote it",
                               options.path, format, kFormat)};
  }
  if (stored.size() < kTailBytes || !meta.parse(std::string_view(stored).substr(0, stored.size() - kTailBytes))) {
    return Trouble{true, "its head record does not decode"};
  }
  if (!check({meta.cluster, meta.node}, kMetaKey, stored)) {
    return Trouble{true, "the checksum of its head record does not fit"};
  }
  if (meta.cluster != options.cluster || meta.node != options.node) {
    return Trouble{false, foreign_error(options.path, "log", meta.cluster, meta.node)};
  }
  return std::nullopt;
}

// Reads one record into its service's image; what is wrong with it, or nothing.
std::optional<std::string> DurableLog::State::load_record(const Key& key, std::string_view value,
                                                          std::vector<LogImage>& images) {
  Service& service = services[key.service.value];
  LogImage& image = images[key.service.value];
  if (key.service != loading_service) loading.clear();
  loading_service = key.service;
  switch (key.kind) {
    case Kind::kContent: {
      DecodedRecord decoded = decode_record(SharedBytes::copy(value), any_limits());
      if (decoded.refusal != Refusal::kNone) return "a batch does not decode";
      OrderedRecord content;
      if (auto* accepted = std::get_if<AcceptedRecord>(&decoded.record)) {
        content = {accepted->n, accepted->digest, accepted->header, std::move(accepted->bodies)};
      } else if (auto* ordered = std::get_if<OrderedRecord>(&decoded.record)) {
        content = std::move(*ordered);
      }
      if (decoded.service != key.service || content.n != key.n || content.digest != key.digest || !content.header) {
        return "a batch is not the one its key names";
      }
      std::size_t weight = 1;
      for (const RequestPtr& body : content.requests) weight += body ? 1 : 0;
      service.contents[{key.n, key.digest}] = weight;
      loading[{key.n, key.digest}] = std::move(content);
      return std::nullopt;
    }
    case Kind::kOrdered: {
      Digest digest;
      if (!unpack(value, digest)) return "an order mark does not decode";
      const auto content = loading.find({key.n, digest});
      if (content == loading.end() || key.n != service.ordered.next()) return "the order has a hole";
      for (const RequestPtr& body : content->second.requests) {
        if (!body) return "an ordered batch lacks a body";
      }
      service.ordered = key.n;
      service.chosen[key.n] = digest;
      image.apply(content->second);
      return std::nullopt;
    }
    case Kind::kAccepted: {
      AcceptedRecord record{{}, key.n, key.digest, nullptr, {}};
      if (!unpack(value, record.view)) return "an accepted batch does not decode";
      if (const auto content = loading.find({key.n, key.digest}); content != loading.end()) {
        record.header = content->second.header;
        record.bodies = content->second.requests;
      }
      image.apply(record);
      return std::nullopt;
    }
    case Kind::kPrepared: {
      PreparedRecord record{{}, key.n, {}};
      if (!unpack(value, record.view, record.digest)) return "a prepared batch does not decode";
      image.apply(record);
      return std::nullopt;
    }
    case Kind::kStable:
    case Kind::kView: {
      const DecodedRecord decoded = decode_record(SharedBytes::copy(value), any_limits());
      const bool fits = decoded.service == key.service &&
                        (key.kind == Kind::kView ? std::holds_alternative<ViewRecord>(decoded.record)
                                                 : std::holds_alternative<StableRecord>(decoded.record));
      if (decoded.refusal != Refusal::kNone || !fits) return "a view or checkpoint does not decode";
      image.apply(decoded.record);
      return std::nullopt;
    }
    case Kind::kLearner:
      image.apply(LearnerRecord{true});
      return std::nullopt;
  }
  return "a record of an unknown kind";
}

std::optional<Trouble> DurableLog::State::load(std::vector<Recovered>& out) {
  if (const WalVerdict tail = trim_wal(log_path()); !tail.damage.empty())
    return Trouble{!tail.environment, tail.damage};
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(log_options(), log_path(), &opened);
  if (!status.ok()) return read_trouble(options.path, status);
  db.reset(opened);
  if (auto trouble = load_meta()) return trouble;
  services.assign(options.services, {});
  std::vector<LogImage> images(options.services);
  rocksdb::ReadOptions read;
  read.verify_checksums = true;
  read.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> at(db->NewIterator(read));
  Sum total;
  for (at->SeekToFirst(); at->Valid(); at->Next()) {
    const std::string_view bytes = at->key().ToStringView();
    if (bytes == kMetaKey) continue;
    const std::optional<Key> key = parse_key(bytes);
    const auto record = key ? check(owner(), bytes, at->value().ToStringView()) : std::nullopt;
    if (!record) return Trouble{true, "the checksum of a record does not fit"};
    total.add(record->sum);
    live.emplace(bytes, record->sum);
    if (key->service.value >= options.services) {
      return Trouble{false, fmt::format("{}: the log has a service {} that cluster.toml does not name", options.path,
                                        key->service.value)};
    }
    if (const auto wrong = load_record(*key, record->value, images)) return Trouble{true, *wrong};
  }
  if (!at->status().ok()) return read_trouble(options.path, at->status());
  loading.clear();
  if (!(total == meta.sum)) return Trouble{true, "records are missing"};
  for (std::uint16_t i = 0; i < options.services; ++i) {
    out.push_back(images[i].recovered());
    drop_below(ServiceId{i}, stable_n(out.back().stable));
  }
  return std::nullopt;
}

// ---- the public face

namespace {

// How a whole log and a whole boot record contradict each other; empty when they do not.
std::string contradiction(const Meta& log, const BootRecord& boot) {
  if (log.boot < boot.boot) return fmt::format("the log is of boot {}, but boot {} has been", log.boot, boot.boot);
  if (log.boot > boot.boot + 1) {
    return fmt::format("the boot record is of boot {}, but the log of boot {}", boot.boot, log.boot);
  }
  if (log.boot == boot.boot && log.id != boot.id) return "log and boot record are of different lives of this node";
  if (log.promises < boot.promises) {
    return fmt::format("the log holds {} groups of promises, but {} were made", log.promises, boot.promises);
  }
  return "";
}

Result<std::string> move_aside(const std::string& path) {
  std::error_code error;
  for (int i = 1;; ++i) {
    const std::string to = fmt::format("{}/log.damaged-{}", path, i);
    if (fs::exists(to, error)) continue;
    fs::rename(path + "/log", to, error);
    if (error) return Error{fmt::format("{}/log: cannot move aside: {}", path, error.message())};
    if (auto synced = sync_directory(path); !synced) return Error{synced.error()};
    return to;
  }
}

}  // namespace

DurableLog::DurableLog(std::unique_ptr<State> state) : state_(std::move(state)) {}

DurableLog::~DurableLog() {
  if (!state_->db || state_->failed || state_->meta.promises == state_->witnessed) return;
  if (auto told = state_->follow_up(); !told) spdlog::error("{}", told.error());
}

Result<DurableLog::Opened> DurableLog::open(const DurableLogOptions& options) {
  std::error_code error;
  fs::create_directories(options.path, error);
  if (error) return Error{fmt::format("{}: cannot make directory: {}", options.path, error.message())};
  Result<Lock> lock = Lock::take(options.path);
  if (!lock) return Error{lock.error()};
  auto state = std::make_unique<State>(options, std::move(lock).value());

  const Result<BootFound> boot = read_boot_record(options.path, options.cluster, options.node);
  if (!boot) return Error{boot.error()};
  const bool has_log = fs::exists(state->log_path() + "/CURRENT", error);
  if (!has_log && !boot->there && !holds_data(state->log_path())) {  // perhaps the rest of a first start
    fs::remove_all(state->log_path(), error);
    if (auto made = state->create({}, false); !made) return Error{made.error()};
    std::vector<Recovered> nothing(options.services);
    return Opened{std::unique_ptr<DurableLog>(new DurableLog(std::move(state))), std::move(nothing), ""};
  }

  Opened opened;
  BootRecord last = boot->record.value_or(BootRecord{});
  std::string damage = "the log is gone";
  if (has_log || fs::exists(state->log_path(), error)) {
    const std::optional<Trouble> trouble = state->load(opened.services);
    if (trouble && !trouble->damaged) return Error{trouble->text};
    // A first start may have ended between log and boot record, before anything was promised.
    const bool unborn = !boot->there && state->meta.boot == 1 && state->meta.promises == 0;
    if (trouble) {
      damage = trouble->text;
    } else if (!boot->record && !unborn) {
      damage = boot->there ? "the boot record is damaged" : "the boot record is gone";
      last = {{}, {}, state->meta.boot, {}, state->meta.promises};
    } else {
      damage = boot->record ? contradiction(state->meta, *boot->record) : "";
    }
  }
  if (damage.empty()) {
    const rocksdb::Status tidied = state->db->EnableAutoCompaction({state->db->DefaultColumnFamily()});
    if (!tidied.ok()) return write_error(options.path, tidied);
    // The boot record must not fall behind by two boots.
    if (auto told = state->follow_up(); !told) return Error{told.error()};
    if (auto started = state->start_boot(state->meta.boot + 1); !started) return Error{started.error()};
    opened.log.reset(new DurableLog(std::move(state)));
    return opened;
  }

  Lock held = std::move(state->lock);
  state->db.reset();
  state = std::make_unique<State>(options, std::move(held));
  opened.damage = fmt::format("{}: {}", options.path, damage);
  if (fs::exists(state->log_path(), error)) {
    const Result<std::string> moved = move_aside(options.path);
    if (!moved) return Error{moved.error()};
    opened.damage += fmt::format("; kept as {}", *moved);
  }
  opened.damage += "; this node does not vote before a stable checkpoint has passed what it may have promised";
  if (auto made = state->create(last, true); !made) return Error{made.error()};
  opened.services.assign(options.services, {});
  for (Recovered& recovered : opened.services) recovered.learner = true;
  opened.log.reset(new DurableLog(std::move(state)));
  return opened;
}

void DurableLog::add(ServiceId service, const LogRecord& record) {
  State& state = *state_;
  ZZ_ASSERT(service.value < state.services.size());
  if (is_promise(record)) state.promise = true;
  if (const auto* accepted = std::get_if<AcceptedRecord>(&record)) return state.add(service, *accepted);
  if (const auto* ordered = std::get_if<OrderedRecord>(&record)) return state.add(service, *ordered);
  if (const auto* stable = std::get_if<StableRecord>(&record)) return state.add(service, *stable);
  if (const auto* prepared = std::get_if<PreparedRecord>(&record)) {
    if (prepared->n <= state.services[service.value].stable) return;
    return state.put(to_bytes({service, Kind::kPrepared, prepared->n, {}}), packed(prepared->view, prepared->digest));
  }
  if (const auto* learner = std::get_if<LearnerRecord>(&record)) {
    const std::string key = to_bytes({service, Kind::kLearner, {}, {}});
    return learner->learner ? state.put(key, "") : state.remove(key);
  }
  state.put(to_bytes({service, Kind::kView, {}, {}}), encode_record(service, record).text());
}

void DurableLog::demand_sync() { state_->promise = true; }

bool DurableLog::promises() const { return state_->promise; }

Result<void> DurableLog::commit() {
  State& state = *state_;
  if (state.failed) return Error{*state.failed};
  if (state.batch.Count() == 0 && !state.promise) return {};
  const bool sync = state.promise && state.options.sync;
  if (state.promise) ++state.meta.promises;
  Result<void> done = state.write_group(sync);
  const std::uint64_t unseen = state.meta.promises - state.witnessed;
  if (done && (unseen >= kBootEveryPromises ||
               (unseen > 0 && std::chrono::steady_clock::now() - state.witnessed_at >= kBootEvery))) {
    done = state.follow_up();
  }
  if (!done) state.failed = done.error();
  return done;
}

}  // namespace zz::agreement
