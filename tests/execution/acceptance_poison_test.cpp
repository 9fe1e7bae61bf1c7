// Acceptance case UP-07: one request that ends the service wherever it runs, sent again and again, to a web service on
// a real mount. The other half of the case, one replica that ends alone, is EX-05 (tests/sim/acceptance_execution.cpp).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "tests/execution/driven_adapter.hpp"
#include "tests/execution/state/store_test_model.hpp"

namespace zz::execution::testing {
namespace {

using ::testing::EndsWith;

// A replica: its store, and the service that lives in it.
struct Replica {
  explicit Replica(HttpAdapterConfig config) {
    config.store = {store.get(), &head, {}, [](const std::vector<state::Want>&) {}};
    driven.emplace(std::move(config));
  }
  Digest root() {
    const std::lock_guard lock(head);
    return state::testing::root_of(*store);
  }

  std::unique_ptr<state::ObjectStore> store = state::testing::in_memory();
  std::mutex head;
  std::optional<Driven> driven;
};

TEST(Acceptance, UP07_PoisonedRequestAgainAndAgain) {
  HttpAdapterConfig config = odd_service();
  config.http.request_timeout_ms = 300;
  Replica one(config);
  Replica other(config);
  ASSERT_EQ(one.driven->start(), "");
  if (!one.driven->warned.empty()) GTEST_SKIP() << one.driven->warned;
  ASSERT_EQ(other.driven->start(), "");
  const std::string no_answer(as_text(http_error_reply(502, "the service did not answer this request")));
  const std::string not_in_time(as_text(http_error_reply(504, "the service did not answer this request in time")));
  int lines = 0;
  int ended = 0;
  for (int round = 0; round < 3; ++round) {
    for (const char* const poison : {"/write-crash", "/crash", "/write-close", "/write-hang", "/garbage", "/half"}) {
      SCOPED_TRACE(poison);
      const Digest before = one.root();
      const pid_t pid = one.driven->adapter->service_pid();
      const std::string reply = one.driven->get(poison);
      EXPECT_EQ(reply, std::string_view(poison) == "/write-hang" ? not_in_time : no_answer);
      EXPECT_EQ(other.driven->get(poison), reply) << "one verdict, so one vote";
      EXPECT_EQ(one.root(), before) << "no trace of it";
      EXPECT_EQ(other.root(), before);
      // The same life of the slot goes on.
      ++lines;
      for (Replica* const replica : {&one, &other}) {
        EXPECT_THAT(replica->driven->get("/write"), EndsWith("\r\n\r\n" + std::to_string(lines)));
        EXPECT_EQ(replica->driven->died, "");
      }
      EXPECT_EQ(one.root(), other.root());
      if (one.driven->adapter->service_pid() != pid) ++ended;
    }
  }
  EXPECT_EQ(ended, 18) << "each ended the service's process";
}

}  // namespace
}  // namespace zz::execution::testing
