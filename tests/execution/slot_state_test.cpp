#include "execution/slot_state.hpp"

#include <gtest/gtest.h>

#include "agreement/messages.hpp"
#include "base/prng.hpp"
#include "tests/execution/order.hpp"
#include "tests/support/memory_store.hpp"

namespace zz::execution::testing {
namespace {

SlotState::Options options() {
  SlotState::Options out{kService, 1, 1, {}};
  out.sessions.client_window = 40;
  out.sessions.sessions_max = 300;  // more than a page of them
  out.sessions.client_sessions_max = 20;
  out.sessions.reply_bytes_max = 150'000;
  return out;
}

// One request, if it is to be run.
void play(SlotState& slot, Prng& prng) {
  const ClientId client{static_cast<std::uint32_t>(prng.below(30))};
  const SessionId session{prng.below(prng.below(5) == 0 ? 500 : 8)};
  const RequestNumber number{1 + prng.below(90)};
  if (slot.sessions().look_up(client, session, number).verdict != SessionTable::Verdict::kRun) return;
  const std::uint64_t longest = prng.below(50) == 0 ? 160'000 : 300;
  const Bytes body(prng.below(longest), static_cast<std::uint8_t>(prng.next()));
  slot.sessions().record(client, session, number, agreement::reply_digest(body), body);
}

TEST(SlotState, ASlotThatIsLoadedAgainAndAgainIsLikeOneThatNeverWas) {
  const auto one = test::memory_store();
  const auto other = test::memory_store();
  SlotState constant(options(), *one);
  SlotState loaded(options(), *other);
  EXPECT_TRUE(constant.is_new());
  Prng same(1);
  Prng same_too(1);
  Prng prng(2);
  std::uint64_t at = 0;
  std::uint64_t objects_max = 0;
  for (std::uint64_t round = 1; round <= 40; ++round) {
    for (std::uint64_t i = prng.below(1'500); i > 0; --i) {
      play(constant, same);
      play(loaded, same_too);
      ASSERT_EQ(one->totals(), other->totals()) << "at " << at++ << ": what a service may write would differ";
    }
    const SlotHead head{Seq{round}, Digest{{static_cast<std::uint8_t>(round)}}, Micros{5}};
    constant.save(head);
    loaded.save(head);
    ASSERT_EQ(test::root_of(*one), test::root_of(*other)) << "round " << round;
    objects_max = std::max(objects_max, one->totals().objects);
    if (prng.below(2) == 0) continue;
    loaded.begin_load();
    const SlotState::Loading loading = loaded.load();
    ASSERT_TRUE(loading.head) << loading.damage;
    EXPECT_EQ(loading.head->n, head.n);
    EXPECT_EQ(loading.head->history, head.history);
    EXPECT_EQ(loading.head->time, head.time);
  }
  EXPECT_FALSE(constant.is_new());
  EXPECT_EQ(constant.sessions().sessions(), 300u);
  const state::Totals reserve = SlotState::reserve(options().sessions);
  EXPECT_LE(objects_max, reserve.objects);
  EXPECT_LE(one->totals().bytes, reserve.bytes);
}

TEST(SlotState, OtherLimitsAreNamed) {
  const auto store = test::memory_store();
  SlotState slot(options(), *store);
  slot.save({Seq{1}, {}, {}});
  SlotState::Options others = options();
  others.sessions.client_window = 41;
  SlotState other(others, *store);
  other.begin_load();
  EXPECT_EQ(other.load().damage, "it was made with other limits of sessions");
}

TEST(SlotTable, ComesBackFromItsEncodingAndKnowsNoEarlierEpochs) {
  agreement::SlotTable table(kService, 1, 1);
  for (std::uint16_t slot = 0; slot < 3; ++slot) EXPECT_TRUE(table.apply(Seq{1}, agreement::SystemOp{join(slot, 1)}));
  EXPECT_TRUE(table.apply(Seq{4}, agreement::SystemOp{epoch_change(1, {0, 2}, {{1, 1}})}));
  EXPECT_TRUE(table.apply(Seq{6}, agreement::SystemOp{join(1, 2)}));
  EXPECT_TRUE(table.apply(Seq{7}, agreement::SystemOp{epoch_change(2, {0, 1}, {{2, 1}})}));
  const Digest digest = table.digest();
  const Bytes bytes = table.encode();
  EXPECT_LE(bytes.size(), agreement::kTableBytesMax);
  EXPECT_EQ(table.epoch_at(Seq{5}), Epoch{1});
  table.forget_through(Seq{5});
  EXPECT_EQ(table.epoch_at(Seq{6}), Epoch{1});
  EXPECT_EQ(table.epoch_at(Seq{8}), Epoch{2});
  table.forget_through(Seq{7});
  EXPECT_EQ(table.epoch_at(Seq{8}), Epoch{2});
  EXPECT_EQ(table.digest(), digest);
  EXPECT_EQ(table.encode(), bytes);
  auto copy = agreement::SlotTable::decode(kService, 1, 1, bytes);
  ASSERT_TRUE(copy);
  EXPECT_EQ(copy->digest(), digest);
  EXPECT_EQ(copy->epoch_at(Seq{8}), Epoch{2});
  EXPECT_EQ(copy->notice(), table.notice());
  for (agreement::SlotTable* one : {&table, &*copy}) EXPECT_TRUE(one->apply(Seq{9}, agreement::SystemOp{join(2, 2)}));
  EXPECT_EQ(copy->digest(), table.digest());
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(agreement::SlotTable::decode(kService, 1, 1, ByteView(bytes).subspan(0, length)));
  }
  Bytes wrong = bytes;
  wrong[16] ^= 0x10;  // a fourth slot is active
  EXPECT_FALSE(agreement::SlotTable::decode(kService, 1, 1, wrong));
}

TEST(OrderWindow, GoesToABatchAndKeepsWhatWasSaidOfLaterOnes) {
  OrderWindow window({1, 1u << 20});
  const auto eight = make_batch(8, {{1, 1, "get a"}});
  const auto three = make_batch(3, {{1, 1, "get a"}});
  for (const auto& batch : {three, eight}) {
    EXPECT_EQ(window.note(NodeId{0}, batch.header->n, batch.digest, {}).refusal, Refusal::kNone);
    EXPECT_EQ(window.note(NodeId{1}, batch.header->n, batch.digest, {}).refusal, Refusal::kNone);
    EXPECT_EQ(window.hold(NodeId{0}, batch), Refusal::kNone);
  }
  window.go_to(Seq{8});
  EXPECT_TRUE(window.runnable());
  EXPECT_EQ(window.take().digest, eight.digest);
  EXPECT_EQ(window.held_bytes(), 0u);
  window.go_to(Seq{3});
  EXPECT_FALSE(window.decided(Seq{3}));
  window.go_to(Seq{3 + 5 * kOrderWindow});
  EXPECT_EQ(window.next(), Seq{3 + 5 * kOrderWindow});
  EXPECT_FALSE(window.runnable());
}

}  // namespace
}  // namespace zz::execution::testing
