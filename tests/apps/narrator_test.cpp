#include "apps/narrator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace zz::apps {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A cluster of four nodes and one service of three slots, and what its nodes say.
class Stories : public ::testing::Test {
 protected:
  Stories() {
    cluster_.f = 1;
    crypto::ServiceEntry service;
    service.name = "web";
    service.g = 1;
    service.slots.resize(3);
    cluster_.services.push_back(service);
    report_ = {{"service", "web"},  {"ordered", 10u}, {"closed", 10u},   {"epoch", 0u},
               {"divergences", 0u}, {"wakes", 0u},    {"evictions", 0u}, {"not_deterministic", 0u}};
    report_["first_correct_reply_us"] = json::array();
    report_["slots"] = json::array({slot(0, 1, true, true), slot(1, 1, true, true), slot(2, 1, false, false)});
  }
  static json slot(unsigned id, unsigned incarnation, bool active, bool connected) {
    return {
        {"slot", id}, {"incarnation", incarnation}, {"active", active}, {"connected", connected}, {"last_vote", 0u}};
  }
  // `count` nodes say `report_`, the rest are silent.
  std::vector<std::string> look(unsigned count = 4) {
    std::vector<json> answers;
    for (unsigned node = 0; node < count; ++node) {
      answers.push_back({{"node", node}, {"services", json::array({report_})}});
    }
    return narrator_.look(answers);
  }

  crypto::ClusterFile cluster_;
  json report_;
  Narrator narrator_{cluster_};
};

TEST_F(Stories, BeginWithTheFirstChange) {
  EXPECT_THAT(look(), IsEmpty());
  EXPECT_THAT(look(), IsEmpty());
}

TEST_F(Stories, TellOfADivergenceItsWakeAndItsEnd) {
  look();
  report_["divergences"] = 1u;
  report_["wakes"] = 1u;
  EXPECT_THAT(look(), ElementsAre(HasSubstr("web: replicas disagree"), HasSubstr("the sleeping replicas wake")));
  report_["slots"][2]["connected"] = true;
  report_["first_correct_reply_us"] = json::array({12'345u});
  EXPECT_THAT(look(), ElementsAre(HasSubstr("settled: g+1 = 2 replicas agree again (longest so far 12.3 ms)"),
                                  "web: slot 2 woke up and catches up"));
  report_["evictions"] = 1u;
  report_["epoch"] = 1u;
  report_["slots"] = json::array({slot(0, 0, false, false), slot(1, 1, true, true), slot(2, 1, true, true)});
  EXPECT_THAT(look(), ElementsAre(HasSubstr("the faulty replica is evicted (eviction 1, epoch 1)"),
                                  "web: slot 0 is destroyed; its host makes a new one",
                                  "web: slot 2 is an active replica now"));
  report_["slots"][0]["incarnation"] = 2u;
  EXPECT_THAT(look(), ElementsAre("web: slot 0 is there again, with a fresh replica (incarnation 2, asleep)"));
}

TEST_F(Stories, TellOfALostReplica) {
  look();
  report_["slots"][1]["connected"] = false;
  EXPECT_THAT(look(), ElementsAre("web: active slot 1 lost its connections"));
}

TEST_F(Stories, RaiseTheAlarmWhenNoReplicasAgree) {
  look();
  report_["not_deterministic"] = 1u;
  EXPECT_THAT(look(), ElementsAre(HasSubstr("ALARM")));
}

TEST_F(Stories, TellWhichNodeIsSilentFromTheStart) {
  EXPECT_THAT(look(3), ElementsAre("agreement node 3 does not answer"));
}

TEST_F(Stories, TellWhichNodeIsSilentAndWhenItIsBack) {
  look();
  EXPECT_THAT(look(3), ElementsAre("agreement node 3 does not answer"));
  EXPECT_THAT(look(3), IsEmpty());
  EXPECT_THAT(look(), ElementsAre("agreement node 3 answers again"));
}

TEST_F(Stories, DoNotBelieveOneNode) {
  look();
  json lie = report_;
  lie["divergences"] = 1'000u;
  lie["not_deterministic"] = 7u;
  lie["slots"] = json::array({slot(0, 99, false, false)});
  std::vector<json> answers;
  for (unsigned node = 0; node < 4; ++node) {
    answers.push_back({{"node", node}, {"services", json::array({node == 2 ? lie : report_})}});
  }
  EXPECT_THAT(narrator_.look(answers), IsEmpty());
}

TEST_F(Stories, SurviveAnswersOfAnyShape) {
  look();
  const std::vector<json> answers = {{{"node", "zero"}, {"services", 7}},
                                     {{"node", 1u}, {"services", json::array({nullptr, 3, "x"})}},
                                     {{"node", 2u}, {"services", json::array({{{"service", "web"}, {"slots", -1}}})}},
                                     json::object()};
  for (const std::string& line : narrator_.look(answers)) EXPECT_THAT(line, HasSubstr("agreement node"));
}

}  // namespace
}  // namespace zz::apps
