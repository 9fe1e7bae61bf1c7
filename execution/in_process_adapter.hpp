#pragma once

// InProcessAdapter: drives a Service that lives in this process, on the slot's object store. An invocation is answered
// before execute() returns, unless a part of the state is absent: then OnMissing hears which, and each supplied() runs
// the invocation again. One thread, that of the store's head; the store must outlive it.

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "execution/service.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

class InProcessAdapter final : public Adapter {
 public:
  // The running invocation needs these. Called from execute() and supplied(), possibly with the same again.
  using OnMissing = std::function<void(const std::vector<state::Want>&)>;
  struct Options {
    ServiceLimits limits;
    std::size_t reply_bytes_max = 1u << 20;  // a longer reply is replaced by kReplyTooLong
  };
  InProcessAdapter(std::unique_ptr<Service> service, state::ObjectStore& store, const Options& options,
                   OnMissing on_missing);

  static constexpr std::string_view kReplyTooLong = "error reply too long";
  // The state has no room for what the request would write; it changed nothing.
  static constexpr std::string_view kFull = "error full";

  void start(Started done) override { done({}); }
  void execute(const Invocation& invocation, Reply done) override;
  void supplied() override;
  void foresee(const std::vector<Invocation>& upcoming) override;
  void replaced(Started done) override {
    pending_.reset();
    done({});
  }
  [[nodiscard]] bool state_is_in_store() const override { return true; }

 private:
  struct Pending {
    Invocation invocation;
    Reply done;
  };
  // The reply, if nothing is absent.
  std::optional<SharedBytes> run(const Invocation& invocation);

  std::unique_ptr<Service> service_;
  state::ObjectStore& store_;
  Options options_;
  OnMissing on_missing_;
  std::optional<Pending> pending_;
};

}  // namespace zz::execution
