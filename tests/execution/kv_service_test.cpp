#include "execution/kv_service.hpp"

#include <gtest/gtest.h>

#include <string>

#include "execution/in_process_adapter.hpp"
#include "tests/support/local_kv.hpp"

namespace zz::execution {
namespace {

std::string call(test::LocalKv& service, std::string_view op) {
  const Invocation invocation{Seq{1}, Micros{42}, Digest{}, ClientId{0}, SharedBytes::copy(op)};
  return std::string(as_text(service.execute(invocation)));
}

TEST(KvService, KeepsValuesByKey) {
  test::LocalKv service;
  EXPECT_EQ(call(service, "get a"), "none");
  EXPECT_EQ(call(service, "put a one two"), "ok");
  EXPECT_EQ(call(service, "get a"), "one two");
  EXPECT_EQ(call(service, "put a "), "ok");
  EXPECT_EQ(call(service, "get a"), "");
  EXPECT_EQ(call(service, "del a"), "ok");
  EXPECT_EQ(call(service, "del a"), "none");
}

TEST(KvService, AddsIntegersAndRefusesWhatIsNone) {
  test::LocalKv service;
  EXPECT_EQ(call(service, "add n 5"), "5");
  EXPECT_EQ(call(service, "add n -7"), "-2");
  EXPECT_EQ(call(service, "add n x"), "error not an integer");
  EXPECT_EQ(call(service, "put t text"), "ok");
  EXPECT_EQ(call(service, "add t 1"), "error not an integer");
  EXPECT_EQ(call(service, "put m 9223372036854775807"), "ok");
  EXPECT_EQ(call(service, "add m 1"), "error out of range");
  EXPECT_EQ(call(service, "get m"), "9223372036854775807");
}

TEST(KvService, AnswersWithTheAgreedTimeAndSeed) {
  test::LocalKv service;
  EXPECT_EQ(call(service, "time"), "42");
  EXPECT_EQ(call(service, "seed"), std::string(64, '0'));
}

TEST(KvService, AnswersAnythingElseWithAnErrorAndChangesNothing) {
  test::LocalKv service;
  for (const std::string_view op : {"", " ", "put", "put a", "get", "get a b", "del a b", "add a", "pop a", "put  x"})
    EXPECT_TRUE(call(service, op).starts_with("error")) << op;
  EXPECT_EQ(call(service, "put " + std::string(KvService::kKeyBytesMax + 1, 'k') + " v"), "error key too long");
  EXPECT_EQ(service.store().totals().objects, 0u);
}

TEST(InProcessAdapter, AnswersBeforeExecuteReturnsAndBoundsTheReply) {
  const auto store = test::memory_store();
  InProcessAdapter adapter(std::make_unique<KvService>(), *store, {{}, 16}, [](const auto&) { FAIL(); });
  bool started = false;
  adapter.start([&](const Result<void>& result) { started = result.ok(); });
  EXPECT_TRUE(started);
  std::string reply;
  const auto run = [&](std::string_view op) {
    adapter.execute({Seq{1}, Micros{1}, Digest{}, ClientId{0}, SharedBytes::copy(op)},
                    [&](const SharedBytes& body) { reply = body.text(); });
  };
  run("put a 12345678901234567890");
  EXPECT_EQ(reply, "ok");
  run("get a");
  EXPECT_EQ(reply, InProcessAdapter::kReplyTooLong);
}

}  // namespace
}  // namespace zz::execution
