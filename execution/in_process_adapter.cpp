#include "execution/in_process_adapter.hpp"

#include <utility>

#include "base/assert.hpp"

namespace zz::execution {

InProcessAdapter::InProcessAdapter(std::unique_ptr<Service> service, state::ObjectStore& store, const Options& options,
                                   OnMissing on_missing)
    : service_(std::move(service)), store_(store), options_(options), on_missing_(std::move(on_missing)) {}

std::optional<SharedBytes> InProcessAdapter::run(const Invocation& invocation) {
  ServiceState state(store_, options_.limits);
  std::optional<SharedBytes> reply = service_->execute(invocation, state);
  ZZ_ASSERT(reply || !state.missing().empty());
  const state::Status status = reply ? state.commit() : state::Status::kMissing;
  if (status == state::Status::kMissing) {
    on_missing_(state.missing());
    return std::nullopt;
  }
  if (status == state::Status::kFull) return SharedBytes::copy(kFull);
  if (reply->size() > options_.reply_bytes_max) return SharedBytes::copy(kReplyTooLong);
  return reply;
}

void InProcessAdapter::execute(const Invocation& invocation, Reply done) {
  ZZ_ASSERT(!pending_);
  if (std::optional<SharedBytes> reply = run(invocation)) return done(std::move(*reply));
  pending_ = Pending{invocation, std::move(done)};
}

// Each as if it came next. Those before it would change little of what it reads; what is missed is asked for later.
void InProcessAdapter::foresee(const std::vector<Invocation>& upcoming) {
  std::vector<state::Want> wants;
  for (const Invocation& invocation : upcoming) {
    ServiceState state(store_, options_.limits);
    static_cast<void>(service_->execute(invocation, state));
    wants.insert(wants.end(), state.missing().begin(), state.missing().end());
  }
  if (!wants.empty()) on_missing_(wants);
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
