#include "execution/slot_store.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <filesystem>
#include <fstream>
#include <utility>
#include <variant>

#include "agreement/codec.hpp"

namespace zz::execution {

namespace {

namespace fs = std::filesystem;

// Opens it; what cannot be opened, or was found damaged, or was being opened when a life ended, goes: others have it.
Result<state::ObjectStore::Opened> open_or_renew(const state::StoreOptions& options) {
  std::error_code error;
  const fs::path begun = fs::path(options.path) / "opening";
  if (fs::exists(begun, error)) {
    spdlog::warn("{}: a life ended while it opened this; it is removed", options.path);
    fs::remove_all(options.path, error);
  }
  fs::create_directories(options.path, error);
  std::ofstream(begun).flush();
  auto opened = state::ObjectStore::open(options);
  if (!opened) {
    spdlog::warn("{}; it is removed", opened.error());
    fs::remove_all(options.path, error);
    opened = state::ObjectStore::open(options);
  }
  fs::remove(begun, error);
  return opened;
}

// A persisted state's label is the message that says that it is stable.
Bytes label_of(const agreement::CertificatePtr& certificate) {
  const SharedBytes bytes = agreement::encode(agreement::Message{certificate->service, agreement::Stable{certificate}});
  return {bytes.view().begin(), bytes.view().end()};
}

agreement::CertificatePtr certificate_in(Bytes label) {
  const agreement::Decoded decoded = agreement::decode(SharedBytes(std::move(label)), {});
  const auto* const stable = std::get_if<agreement::Stable>(&decoded.message.body);
  return decoded.refusal == Refusal::kNone && stable != nullptr ? stable->certificate : nullptr;
}

}  // namespace

Result<std::unique_ptr<SlotStore>> SlotStore::open(boost::asio::io_context& loop, const Options& options,
                                                   Callbacks callbacks) {
  auto opened = open_or_renew(options.store);
  if (!opened) return Error{opened.error()};
  if (!opened->damage.empty()) spdlog::warn("{}", opened->damage);
  opened->store->clear();
  std::unique_ptr<SlotStore> made(new SlotStore(loop, options, std::move(opened->store), std::move(callbacks)));
  if (opened->persisted) made->kept_ = certificate_in(opened->label);
  return made;
}

SlotStore::SlotStore(boost::asio::io_context& loop, const Options& options, std::unique_ptr<state::ObjectStore> store,
                     Callbacks callbacks)
    : loop_(loop),
      callbacks_(std::move(callbacks)),
      memory_bytes_(options.store.path.empty() ? ~std::uint64_t{0} : options.store.memory_bytes),
      store_(std::move(store)),
      fetcher_(options.fetcher, *store_),
      source_(options.source, *store_),
      reader_source_(options.source, *store_),
      reading_(options.source.nodes),
      keeper_(loop, *store_) {}

SlotStore::~SlotStore() {
  reader_.stop();
  reader_.join();
}

// Fetching stops well before execution does, or it would be what execution waits for.
bool SlotStore::filled(std::uint64_t parts_of_64) const {
  return store_->counters().bytes_resident > memory_bytes_ / 64 * parts_of_64 && store_->disk_error().empty();
}

bool SlotStore::crowded() const { return filled(63); }

void SlotStore::tick(Micros now) {
  now_ = now;
  fetcher_.tick(now);
  watch_disk();
  keeper_.tidy();
  turn();
}

void SlotStore::watch_disk() {
  const std::string error = store_->disk_error();
  if (error.empty()) return;
  if (!std::exchange(disk_failed_, true)) spdlog::error("{}; nothing more is written", error);
  if (store_->counters().bytes_resident > memory_bytes_) callbacks_.failed(error + "; memory alone does not do");
}

void SlotStore::adopted(Seq n) {
  source_of_ = n;
  settle_at_ = Micros{now_.value + kSettle.value};
  fetcher_.begin(n);
  keeper_.tidy();
}

void SlotStore::replays() {
  source_of_ = {};
  fetcher_.end();
  keeper_.tidy();
}

void SlotStore::settled() { settle_at_ = std::min(settle_at_, now_); }

void SlotStore::pace() { fetcher_.hold(now_ < settle_at_ || (fetcher_.active() && filled(58))); }

void SlotStore::stable(const agreement::CertificatePtr& certificate, const state::Snapshot& snapshot) {
  const Seq n = certificate->state.n;
  if (fetcher_.active() && n > std::exchange(source_of_, n)) fetcher_.rebase(n);
  if (persisting_ || disk_failed_ || now_ < std::max(persist_at_, settle_at_) || !snapshot) return;
  persisting_ = true;
  keeper_.persist(snapshot, label_of(certificate), [this, certificate](const Result<void>& done) {
    persisting_ = false;
    persist_at_ = Micros{now_.value + kPersistEvery.value};
    if (done) {
      kept_ = certificate;
    } else if (!fetcher_.active()) {
      spdlog::warn("the state was not written to disk: {}", done.error());
    }
  });
}

Refusal SlotStore::step(NodeId from, const agreement::StateParts& answer) {
  const std::lock_guard lock(head_);
  return fetcher_.step(from, answer);
}

Refusal SlotStore::step(NodeId from, const agreement::FetchState& wish, const state::Snapshot& snapshot) {
  const bool reads = !wish.wants.empty() && snapshot != nullptr;
  StateSource::Answer answer = source_.answer(from, wish, reads ? nullptr : snapshot);
  if (answer.refusal == Refusal::kNone && reads) {
    if (reading_[from.value] < kReadingMax) {
      read(from, wish, snapshot);
      return Refusal::kNone;
    }
    answer.refusal = Refusal::kQuota;
  }
  callbacks_.send(from, std::move(answer.parts));
  return answer.refusal;
}

void SlotStore::read(NodeId from, agreement::FetchState wish, state::Snapshot snapshot) {
  ++reading_[from.value];
  boost::asio::post(reader_, [this, from, wish = std::move(wish), snapshot = std::move(snapshot)] {
    reader_source_.sent();
    agreement::StateParts parts = reader_source_.answer(from, wish, snapshot).parts;
    boost::asio::post(loop_, [this, alive = std::weak_ptr<int>(alive_), from, parts = std::move(parts)]() mutable {
      if (alive.expired()) return;
      --reading_[from.value];
      callbacks_.send(from, std::move(parts));
    });
  });
}

void SlotStore::digest(const Executor::ToDigest& task) {
  if (digesting_ == task.n) return;
  digesting_ = task.n;
  keeper_.digest(task.snapshot, [this, n = task.n](const Digest& root) {
    digesting_ = Seq{};
    callbacks_.digested(n, root);
  });
}

void SlotStore::turn() {
  source_.sent();
  pace();
  StateFetcherOutput out;
  {
    const std::lock_guard lock(head_);  // it looks for what is absent
    out = fetcher_.take_output();
  }
  for (auto& [node, wish] : out.ask) callbacks_.send(node, std::move(wish));
  if (out.arrived) callbacks_.supplied();
  if (out.complete) callbacks_.whole();
  if (out.stale) callbacks_.stale();
}

}  // namespace zz::execution
