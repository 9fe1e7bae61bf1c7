#include "execution/in_process_adapter.hpp"

#include <utility>

#include "base/assert.hpp"

namespace zz::execution {

InProcessAdapter::InProcessAdapter(std::unique_ptr<Service> service, state::ObjectStore& store, const Options& options,
                                   OnMissing on_missing)
    : service_(std::move(service)), store_(store), options_(options), on_missing_(std::move(on_missing)) {}

std::optional<SharedBytes> InProcessAdapter::run(const Invocation& invocation) {
  ServiceState state(store_, options_.limits);
  std::optional<Bytes> reply = service_->execute(invocation, state);
  ZZ_ASSERT(reply || !state.missing().empty());
  const state::Status status = reply ? state.commit() : state::Status::kMissing;
  if (status == state::Status::kMissing) {
    on_missing_(state.missing());
    return std::nullopt;
  }
  if (status == state::Status::kFull) return SharedBytes::copy(kFull);
  if (reply->size() > options_.reply_bytes_max) return SharedBytes::copy(kReplyTooLong);
  return SharedBytes(std::move(*reply));
}

void InProcessAdapter::execute(const Invocation& invocation, Reply done) {
  ZZ_ASSERT(!pending_);
  if (std::optional<SharedBytes> reply = run(invocation)) return done(std::move(*reply));
  pending_ = Pending{invocation, std::move(done)};
}

void InProcessAdapter::supplied() {
  if (!pending_) return;
  std::optional<SharedBytes> reply = run(pending_->invocation);
  if (!reply) return;
  const Reply done = std::move(pending_->done);
  pending_.reset();
  done(std::move(*reply));
}

}  // namespace zz::execution
