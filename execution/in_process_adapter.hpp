#pragma once

// InProcessAdapter: drives a Service that lives in this process. Every invocation is answered before execute() returns.
// One thread.

#include <memory>
#include <string_view>
#include <utility>

#include "execution/service.hpp"

namespace zz::execution {

class InProcessAdapter final : public Adapter {
 public:
  // A reply longer than `reply_bytes_max` is replaced by kReplyTooLong.
  InProcessAdapter(std::unique_ptr<Service> service, std::size_t reply_bytes_max)
      : service_(std::move(service)), reply_bytes_max_(reply_bytes_max) {}

  static constexpr std::string_view kReplyTooLong = "error reply too long";

  void start(Started done) override { done({}); }
  void execute(const Invocation& invocation, Reply done) override {
    Bytes reply = service_->execute(invocation);
    if (reply.size() > reply_bytes_max_) return done(SharedBytes::copy(kReplyTooLong));
    done(SharedBytes(std::move(reply)));
  }

 private:
  std::unique_ptr<Service> service_;
  std::size_t reply_bytes_max_;
};

}  // namespace zz::execution
