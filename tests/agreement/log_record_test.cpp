#include "agreement/log_record.hpp"

#include <gtest/gtest.h>

#include <string>

namespace zz::agreement {
namespace {

RequestPtr request(std::uint64_t number) {
  auto r = std::make_shared<Request>();
  r->number = RequestNumber{number};
  r->op = SharedBytes::copy("op " + std::to_string(number));
  r->digest = request_digest(ServiceId{}, r->client, r->session, r->number, r->flags, r->op.view());
  return r;
}

// Batch n: requests 10n and 10n + 1; `variant` tells several for one number apart.
struct TestBatch {
  HeaderPtr header;
  Digest digest;
  std::vector<RequestPtr> requests;
};
TestBatch batch(std::uint64_t n, std::int64_t variant = 0) {
  TestBatch b;
  auto header = std::make_shared<BatchHeader>();
  header->n = Seq{n};
  header->time = Micros{variant};
  for (const std::uint64_t i : {0u, 1u}) {
    b.requests.push_back(request(10 * n + i));
    header->references.push_back(reference_of(*b.requests.back()));
  }
  b.digest = batch_digest(*header);
  b.header = header;
  return b;
}

AcceptedRecord accepted(const TestBatch& b, std::uint64_t view) {
  return {View{view}, b.header->n, b.digest, b.header, b.requests};
}
AcceptedRecord without_bodies(const TestBatch& b, std::uint64_t view) {
  AcceptedRecord record = accepted(b, view);
  record.bodies.assign(2, nullptr);
  return record;
}
PreparedRecord prepared(const TestBatch& b, std::uint64_t view) { return {View{view}, b.header->n, b.digest}; }
OrderedRecord ordered(const TestBatch& b) { return {b.header->n, b.digest, b.header, b.requests}; }
StableRecord stable(std::uint64_t n) {
  auto certificate = std::make_shared<StableCertificate>();
  certificate->state.n = Seq{n};
  return {certificate};
}
ViewRecord in_view(std::uint64_t view, bool changing = false) { return {View{view}, changing, nullptr, nullptr}; }

Recovered read_back(const std::vector<LogRecord>& records) {
  LogImage image;
  for (const LogRecord& record : records) image.apply(record);
  return image.recovered();
}

std::string brief(const std::vector<AcceptedRecord>& records) {
  std::string out;
  for (const AcceptedRecord& r : records) out += std::to_string(r.n.value) + "@" + std::to_string(r.view.value) + " ";
  return out;
}
std::string brief(const std::vector<PreparedRecord>& records) {
  std::string out;
  for (const PreparedRecord& r : records) out += std::to_string(r.n.value) + "@" + std::to_string(r.view.value) + " ";
  return out;
}
std::string brief(const std::vector<OrderedRecord>& records) {
  std::string out;
  for (const OrderedRecord& r : records) out += std::to_string(r.n.value) + " ";
  return out;
}

TEST(LogRecord, EverythingButTheOrderIsAPromise) {
  const TestBatch b = batch(1);
  EXPECT_TRUE(is_promise(in_view(1)));
  EXPECT_TRUE(is_promise(accepted(b, 0)));
  EXPECT_TRUE(is_promise(prepared(b, 0)));
  EXPECT_TRUE(is_promise(stable(1)));
  EXPECT_TRUE(is_promise(LearnerRecord{true}));
  EXPECT_FALSE(is_promise(ordered(b)));
}

TEST(LogImage, OfNothingIsTheBeginning) {
  const Recovered r = read_back({});
  EXPECT_EQ(r.view.view, View{0});
  EXPECT_FALSE(r.view.changing);
  EXPECT_EQ(r.stable, nullptr);
  EXPECT_TRUE(r.ordered.empty() && r.accepted.empty() && r.prepared.empty());
  EXPECT_FALSE(r.learner);
}

TEST(LogImage, TheLastWordOnTheViewHolds) {
  EXPECT_TRUE(read_back({in_view(1, true)}).view.changing);
  const Recovered r = read_back({in_view(1, true), in_view(2, true), in_view(2, false)});
  EXPECT_EQ(r.view.view, View{2});
  EXPECT_FALSE(r.view.changing);
}

TEST(LogImage, TheViewNeverGoesBack) { EXPECT_EQ(read_back({in_view(3), in_view(2)}).view.view, View{3}); }

TEST(LogImage, TheMessagesOfAViewComeBackWithIt) {
  ViewRecord record = in_view(1, true);
  record.sent = std::make_shared<ViewChange>();
  EXPECT_EQ(read_back({record}).view.sent, record.sent);
  ViewRecord entered = in_view(1);
  entered.accepted = std::make_shared<NewView>();
  const Recovered r = read_back({record, entered});
  EXPECT_EQ(r.view.sent, nullptr);
  EXPECT_EQ(r.view.accepted, entered.accepted);
}

TEST(LogImage, TheOrderComesBackWithoutHoles) {
  EXPECT_EQ(brief(read_back({ordered(batch(1)), ordered(batch(2)), ordered(batch(4))}).ordered), "1 2 ");
  EXPECT_EQ(brief(read_back({ordered(batch(2))}).ordered), "");
  EXPECT_EQ(brief(read_back({ordered(batch(2)), ordered(batch(1))}).ordered), "1 2 ");
}

TEST(LogImage, TheOrderComesBackWithItsContent) {
  const TestBatch b = batch(1);
  const Recovered r = read_back({ordered(b)});
  ASSERT_EQ(r.ordered.size(), 1u);
  EXPECT_EQ(r.ordered[0].digest, b.digest);
  EXPECT_EQ(r.ordered[0].header, b.header);
  EXPECT_EQ(r.ordered[0].requests, b.requests);
}

TEST(LogImage, AnOrderedBatchWithoutItsContentEndsTheOrder) {
  OrderedRecord headless = ordered(batch(2));
  headless.header = nullptr;
  OrderedRecord bodiless = ordered(batch(2));
  bodiless.requests[1] = nullptr;
  OrderedRecord shorter = ordered(batch(2));
  shorter.requests.pop_back();
  for (const OrderedRecord& record : {headless, bodiless, shorter}) {
    EXPECT_EQ(brief(read_back({ordered(batch(1)), record, ordered(batch(3))}).ordered), "1 ");
  }
}

TEST(LogImage, AnOrderedBatchTakesItsContentFromTheAcceptedOne) {
  const TestBatch b = batch(1);
  const OrderedRecord marker{Seq{1}, b.digest, nullptr, {}};
  const Recovered r = read_back({accepted(b, 0), marker, stable(1)});
  ASSERT_EQ(r.ordered.size(), 1u);
  EXPECT_EQ(r.ordered[0].header, b.header);
  EXPECT_EQ(r.ordered[0].requests, b.requests);
  // Another batch's content is none.
  EXPECT_EQ(brief(read_back({accepted(batch(1, 7), 0), marker}).ordered), "");
}

TEST(LogImage, AcceptedBatchesComeBackByNumberThenView) {
  const Recovered r =
      read_back({accepted(batch(2), 1), accepted(batch(1, 5), 3), accepted(batch(1), 0), accepted(batch(3), 0)});
  EXPECT_EQ(brief(r.accepted), "1@0 1@3 2@1 3@0 ");
}

TEST(LogImage, TheNewestViewOfEachAcceptedDigestComesBack) {
  const TestBatch b = batch(1);
  EXPECT_EQ(brief(read_back({accepted(b, 0), accepted(b, 2)}).accepted), "1@2 ");
  EXPECT_EQ(brief(read_back({accepted(b, 2), accepted(b, 0)}).accepted), "1@2 ");
  const Recovered r = read_back({accepted(b, 2), accepted(batch(1, 5), 1)});
  EXPECT_EQ(brief(r.accepted), "1@1 1@2 ");
  EXPECT_EQ(r.accepted[1].digest, b.digest);
}

TEST(LogImage, TheNewestViewOfEachPreparedNumberComesBack) {
  const TestBatch b = batch(1);
  const TestBatch other = batch(1, 5);
  for (const auto& records : {std::vector<LogRecord>{prepared(b, 0), prepared(other, 2), prepared(batch(2), 0)},
                              std::vector<LogRecord>{prepared(other, 2), prepared(batch(2), 0), prepared(b, 0)}}) {
    const Recovered r = read_back(records);
    EXPECT_EQ(brief(r.prepared), "1@2 2@0 ");
    EXPECT_EQ(r.prepared[0].digest, other.digest);
  }
}

TEST(LogImage, AnAcceptedBatchTakesItsContentFromAnyRecordOfTheSameBatch) {
  const TestBatch b = batch(1);
  AcceptedRecord bare = accepted(b, 3);
  bare.header = nullptr;
  bare.bodies.clear();
  AcceptedRecord half = without_bodies(b, 1);
  half.bodies[0] = b.requests[0];
  AcceptedRecord other_half = without_bodies(b, 2);
  other_half.bodies[1] = b.requests[1];
  const std::vector<std::vector<LogRecord>> logs = {
      {bare, accepted(b, 0)},   {accepted(b, 0), bare},   {bare, ordered(b)},       {ordered(b), bare},
      {half, other_half, bare}, {bare, other_half, half}, {other_half, bare, half}, {without_bodies(b, 3), ordered(b)},
  };
  for (std::size_t i = 0; i < logs.size(); ++i) {
    const Recovered r = read_back(logs[i]);
    ASSERT_EQ(brief(r.accepted), "1@3 ") << i;
    EXPECT_EQ(r.accepted[0].header, b.header) << i;
    EXPECT_EQ(r.accepted[0].bodies, b.requests) << i;
  }
}

TEST(LogImage, AnAcceptedBatchTakesNothingFromAnotherBatchOfTheSameNumber) {
  const TestBatch b = batch(1);
  const Recovered r = read_back({without_bodies(b, 1), accepted(batch(1, 5), 0), ordered(batch(1, 6))});
  ASSERT_EQ(brief(r.accepted), "1@0 1@1 ");
  EXPECT_EQ(r.accepted[1].bodies, (std::vector<RequestPtr>{nullptr, nullptr}));
}

TEST(LogImage, AStableCheckpointEndsThePromisesUpToItAndKeepsTheOrder) {
  const std::vector<LogRecord> said = {accepted(batch(1), 0), accepted(batch(2), 0), accepted(batch(3), 0),
                                       prepared(batch(1), 0), prepared(batch(2), 0), prepared(batch(3), 0),
                                       ordered(batch(1)),     ordered(batch(2))};
  for (const bool first : {false, true}) {  // wherever the checkpoint stands in what is read back
    std::vector<LogRecord> records = said;
    records.insert(first ? records.begin() : records.end(), stable(2));
    const Recovered r = read_back(records);
    EXPECT_EQ(stable_n(r.stable), Seq{2});
    EXPECT_EQ(brief(r.accepted), "3@0 ");
    EXPECT_EQ(brief(r.prepared), "3@0 ");
    EXPECT_EQ(brief(r.ordered), "1 2 ");
  }
}

TEST(LogImage, AnOlderStableCheckpointDoesNotReplaceANewerOne) {
  const Recovered r = read_back({stable(4), stable(2), accepted(batch(3), 0), accepted(batch(5), 0)});
  EXPECT_EQ(stable_n(r.stable), Seq{4});
  EXPECT_EQ(brief(r.accepted), "5@0 ");
}

TEST(LogImage, AllStableCheckpointsComeBackInOrder) {
  const Recovered r = read_back({stable(4), stable(2), stable(6), stable(4), StableRecord{nullptr}});
  ASSERT_EQ(r.certificates.size(), 3u);
  EXPECT_EQ(stable_n(r.certificates[0]), Seq{2});
  EXPECT_EQ(stable_n(r.certificates[1]), Seq{4});
  EXPECT_EQ(r.stable, r.certificates[2]);
  EXPECT_EQ(stable_n(r.stable), Seq{6});
}

TEST(LogImage, TheLastWordOnBeingALearnerHolds) {
  EXPECT_TRUE(read_back({LearnerRecord{true}, in_view(1)}).learner);
  EXPECT_FALSE(read_back({LearnerRecord{true}, LearnerRecord{false}}).learner);
}

TEST(LogImage, ReadingTheSameRecordsTwiceChangesNothing) {
  const std::vector<LogRecord> once = {
      in_view(1),        accepted(batch(1), 1), accepted(batch(1, 5), 0), prepared(batch(1), 1),
      ordered(batch(1)), accepted(batch(2), 1)};
  std::vector<LogRecord> twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  const Recovered a = read_back(once);
  const Recovered b = read_back(twice);
  EXPECT_EQ(brief(a.accepted), brief(b.accepted));
  EXPECT_EQ(brief(a.prepared), brief(b.prepared));
  EXPECT_EQ(brief(a.ordered), brief(b.ordered));
  EXPECT_EQ(a.view.view, b.view.view);
}

}  // namespace
}  // namespace zz::agreement
