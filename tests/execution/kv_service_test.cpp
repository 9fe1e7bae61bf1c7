#include "execution/kv_service.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "execution/in_process_adapter.hpp"
#include "tests/support/local_kv.hpp"

namespace zz::execution {
namespace {

std::string call(test::LocalKv& service, std::string_view op) {
  const Invocation invocation{Seq{1}, Micros{42}, Digest{}, ClientId{0}, SharedBytes::copy(op)};
  return std::string(service.execute(invocation).text());
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

TEST(KvService, LongValuesComeBackAndLeaveNothingBehind) {
  test::LocalKv service;
  for (const std::size_t bytes : {65'000, 65'536, 300'000, 70'000, 131'072, 5}) {
    const std::string value(bytes, static_cast<char>('a' + bytes % 26));
    EXPECT_EQ(call(service, "put long " + value), "ok");
    EXPECT_EQ(call(service, "get long"), value);
    EXPECT_EQ(service.store().totals().objects, (bytes + 20 + 65'535) / 65'536);
  }
  EXPECT_EQ(call(service, "del long"), "ok");
  EXPECT_EQ(service.store().totals().objects, 0u);
}

TEST(KvService, FillsInOneRequestTheSameEverywhere) {
  test::LocalKv one;
  test::LocalKv other;
  EXPECT_EQ(call(one, "fill k 3 65000"), "ok");
  EXPECT_EQ(call(other, "fill k 3 65000"), "ok");
  EXPECT_EQ(one.store().totals().objects, 3u);
  EXPECT_EQ(test::root_of(one.store()), test::root_of(other.store()));
  EXPECT_EQ(call(one, "get k2").size(), 65'000u);
  EXPECT_NE(call(one, "get k2"), call(one, "get k1"));
  EXPECT_EQ(call(one, "get k3"), "none");
  for (const std::string_view op :
       {"fill", "fill k", "fill k 3", "fill k 0 1", "fill k 1 0", "fill k -1 1", "fill k 4097 1", "fill k 4096 65000",
        "fill k x 1", "fill k 9223372036854775807 9223372036854775807"}) {
    EXPECT_TRUE(call(other, op).starts_with("error")) << op;
  }
  EXPECT_EQ(test::root_of(one.store()), test::root_of(other.store()));
}

TEST(KvService, TheStateOfEqualContentsIsEqual) {
  test::LocalKv one;
  test::LocalKv other;
  for (int i = 0; i < 300; ++i) call(one, "put k" + std::to_string(i) + " v" + std::to_string(i));
  for (int i = 399; i >= 0; --i) call(other, "put k" + std::to_string(i) + " v" + std::to_string(i));
  for (int i = 300; i < 400; ++i) EXPECT_EQ(call(other, "del k" + std::to_string(i)), "ok");
  EXPECT_EQ(test::root_of(one.store()), test::root_of(other.store()));
}

TEST(ServiceState, ChangesAreSeenAtOnceAndWrittenTogetherOrNotAtAll) {
  const auto store = test::memory_store();
  const auto put = [](ServiceState& state, std::uint64_t id, std::size_t bytes) {
    state.write(state::ObjectId{id}, Bytes(bytes, 1));
  };
  ServiceLimits limits;
  limits.objects_max = 3;
  limits.bytes_max = 100;
  ServiceState first(*store, limits);
  put(first, 5, 10);
  put(first, 7, 10);
  EXPECT_EQ(first.next(state::ObjectId{}), state::ObjectId{5});
  EXPECT_EQ(first.next(state::ObjectId{6}), state::ObjectId{7});
  EXPECT_EQ(store->totals().objects, 0u);
  EXPECT_EQ(first.commit(), state::Status::kDone);
  ServiceState second(*store, limits);
  second.erase(state::ObjectId{5});
  EXPECT_FALSE(second.read(state::ObjectId{5}));
  EXPECT_EQ(second.next(state::ObjectId{}), state::ObjectId{7});
  put(second, 8, 95);
  EXPECT_EQ(second.commit(), state::Status::kFull);
  EXPECT_EQ(store->totals(), (state::Totals{2, 20}));
  ServiceState third(*store, limits);
  third.erase(state::ObjectId{5});
  third.erase(state::ObjectId{7});
  put(third, 9, 100);
  EXPECT_EQ(third.commit(), state::Status::kDone) << "what goes makes room";
  ServiceState fourth(*store, limits);
  put(fourth, 9, 90);
  EXPECT_EQ(fourth.commit(), state::Status::kDone);
  EXPECT_EQ(store->totals(), (state::Totals{1, 90}));
}

TEST(InProcessAdapter, RunsARequestAgainOnceTheStateItLacksHasCome) {
  test::LocalKv source;
  call(source, "put a 1");
  call(source, "put b " + std::string(200'000, 'b'));
  const Digest root = test::root_of(source.store());
  const auto snapshot = source.store().snapshot();
  static_cast<void>(test::digest_of(source.store(), *snapshot));
  const auto store = test::memory_store();
  store->adopt(root);
  std::vector<state::Want> missing;
  InProcessAdapter adapter(std::make_unique<KvService>(), *store, {},
                           [&](const std::vector<state::Want>& wants) { missing = wants; });
  const auto fetch = [&] {
    for (const state::Want& want : std::exchange(missing, {})) {
      EXPECT_EQ(store->supply(*source.store().part(*snapshot, want)), Refusal::kNone);
    }
  };
  std::vector<std::string> replies;
  const auto run = [&](std::string_view op) {
    adapter.execute({Seq{1}, Micros{1}, Digest{}, ClientId{0}, SharedBytes::copy(op)},
                    [&](const SharedBytes& body) { replies.emplace_back(body.text()); });
  };
  run("add a 1");
  EXPECT_TRUE(replies.empty());
  for (int rounds = 0; rounds < 4 && replies.empty(); ++rounds) {
    fetch();
    adapter.supplied();
  }
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0], "2");
  run("get b");
  for (int rounds = 0; rounds < 4 && replies.size() < 2; ++rounds) {
    fetch();
    adapter.supplied();
  }
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[1].size(), 200'000u);
  adapter.supplied();
  EXPECT_EQ(replies.size(), 2u);
  store->adopt(Digest{{9}});
  run("get c");
  adapter.replaced([](const Result<void>& result) { EXPECT_TRUE(result.ok()); });
  adapter.supplied();
  EXPECT_EQ(replies.size(), 2u) << "what ran on the old state says nothing";
}

TEST(InProcessAdapter, AsksForWhatLaterRequestsNeedAndChangesNothing) {
  test::LocalKv source;
  for (int i = 0; i < 50; ++i) call(source, "put k" + std::to_string(i) + " 1");
  const Digest root = test::root_of(source.store());
  const auto snapshot = source.store().snapshot();
  static_cast<void>(test::digest_of(source.store(), *snapshot));
  const auto store = test::memory_store();
  store->adopt(root);
  std::vector<state::Want> missing;
  InProcessAdapter adapter(std::make_unique<KvService>(), *store, {}, [&](const std::vector<state::Want>& wants) {
    missing.insert(missing.end(), wants.begin(), wants.end());
  });
  const auto request = [](std::string_view op) {
    return Invocation{Seq{1}, Micros{1}, Digest{}, ClientId{0}, SharedBytes::copy(op)};
  };
  std::string reply;
  adapter.execute(request("add k0 1"), [&](const SharedBytes& body) { reply = body.text(); });
  adapter.foresee({request("add k1 5"), request("put k2 x"), request("get k3"), request("nonsense")});
  ASSERT_EQ(missing.size(), 4u);
  for (const state::Want& want : std::exchange(missing, {})) {  // as a source answers: the whole path to it
    for (const state::Part& part : source.store().path(*snapshot, {want.toward, 0, true})) {
      const Refusal refusal = store->supply(part);
      EXPECT_TRUE(refusal == Refusal::kNone || refusal == Refusal::kDuplicate || refusal == Refusal::kNotWanted);
    }
  }
  adapter.supplied();
  EXPECT_EQ(reply, "2");
  for (const auto& [op, right] : {std::pair("get k1", "1"), std::pair("get k2", "1"), std::pair("add k3 5", "6")}) {
    adapter.execute(request(op), [&](const SharedBytes& body) { reply = body.text(); });
    EXPECT_EQ(reply, right) << op;
  }
  EXPECT_TRUE(missing.empty()) << "one round trip was enough";
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
