#pragma once

// LocalKv: a key-value service with a state of its own in memory, for tests that only want its answers.

#include <memory>
#include <optional>
#include <utility>

#include "base/assert.hpp"
#include "execution/kv_service.hpp"
#include "tests/support/memory_store.hpp"

namespace zz::test {

class LocalKv {
 public:
  SharedBytes execute(const execution::Invocation& invocation) {
    execution::ServiceState state(*store_, {});
    std::optional<SharedBytes> reply = service_.execute(invocation, state);
    ZZ_ASSERT(reply.has_value());
    const execution::state::Status status = state.commit();
    ZZ_ASSERT(status == execution::state::Status::kDone);
    return std::move(*reply);
  }
  [[nodiscard]] execution::state::ObjectStore& store() { return *store_; }

 private:
  std::unique_ptr<execution::state::ObjectStore> store_ = memory_store();
  execution::KvService service_;
};

}  // namespace zz::test
