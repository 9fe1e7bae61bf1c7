#include "agreement/agent_link.hpp"

#include <gtest/gtest.h>

namespace zz::agreement {
namespace {

AgentIdentity an_identity() {
  AgentIdentity id;
  id.service.value = 63;
  id.slot.value = 2;
  id.incarnation.value = ~std::uint64_t{0};
  id.epoch.value = 5;
  for (std::size_t i = 0; i < 32; ++i) {
    id.key_seed[i] = static_cast<std::uint8_t>(i);
    id.entropy[i] = static_cast<std::uint8_t>(255 - i);
  }
  return id;
}

TEST(AgentLink, CarriesAnIdentityUnchanged) {
  const AgentIdentity id = an_identity();
  const std::string line = encode(ToAgent{id, ""});
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_LE(line.size(), kAgentLineMax);
  const auto parsed = parse_to_agent(line);
  ASSERT_TRUE(parsed.ok()) << parsed.error();
  ASSERT_TRUE(parsed->identity.has_value());
  EXPECT_EQ(parsed->identity->service, id.service);
  EXPECT_EQ(parsed->identity->slot, id.slot);
  EXPECT_EQ(parsed->identity->incarnation, id.incarnation);
  EXPECT_EQ(parsed->identity->epoch, id.epoch);
  EXPECT_EQ(parsed->identity->key_seed, id.key_seed);
  EXPECT_EQ(parsed->identity->entropy, id.entropy);
  EXPECT_TRUE(parsed->fault.empty());
}

TEST(AgentLink, CarriesFaultsAndEvents) {
  const auto fault = parse_to_agent(encode(ToAgent{std::nullopt, "wrong-reply"}));
  ASSERT_TRUE(fault.ok());
  EXPECT_EQ(fault->fault, "wrong-reply");
  EXPECT_FALSE(fault->identity.has_value());
  for (const auto kind : {FromAgent::Kind::kReady, FromAgent::Kind::kFailed, FromAgent::Kind::kFaulted}) {
    const auto event = parse_from_agent(encode(FromAgent{kind, "no such file"}));
    ASSERT_TRUE(event.ok());
    EXPECT_EQ(event->kind, kind);
    EXPECT_EQ(event->error, kind == FromAgent::Kind::kFailed ? "no such file" : "");
  }
}

TEST(AgentLink, CarriesHowALifeGetsOn) {
  for (const Duty& duty : {Duty{{}, {}, 0}, Duty{12, {}, 7}, Duty{{}, 34, 7}, Duty{12, 34, ~std::uint64_t{0}}}) {
    const auto event = parse_from_agent(encode(FromAgent{FromAgent::Kind::kDuty, {}, duty}));
    ASSERT_TRUE(event.ok());
    EXPECT_EQ(event->kind, FromAgent::Kind::kDuty);
    EXPECT_EQ(event->duty, duty);
  }
}

TEST(AgentLink, KeepsEveryErrorOnOneBoundedLine) {
  std::string nasty(100'000, '\x01');
  nasty[0] = '\n';
  nasty[1] = '\xff';  // not UTF-8
  const std::string line = encode(FromAgent{FromAgent::Kind::kFailed, nasty});
  EXPECT_LE(line.size(), kAgentLineMax);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_TRUE(parse_from_agent(line).ok());
}

TEST(AgentLink, RefusesLinesThatAreNotItsOwn) {
  for (const char* line :
       {"", "{", "[]", "null", "7", "{}", "{\"event\":1}", "{\"event\":\"dance\"}", "{\"event\":\"ready\",\"more\":1}",
        "{\"event\":\"failed\",\"error\":7}", "{\"event\":\"ready\"} {}", "{\"event\":\"ready\",\"error\":\"x\"}",
        "{\"event\":\"duty\"}", "{\"event\":\"duty\",\"touched_bytes\":-1}",
        "{\"event\":\"duty\",\"touched_bytes\":1,\"voted_us\":\"x\"}", "{\"event\":\"ready\",\"touched_bytes\":1}"}) {
    EXPECT_FALSE(parse_from_agent(line).ok()) << line;
  }
  for (const char* line : {"", "{", "[]", "{}", "{\"fault\":7}", "{\"fault\":\"\"}", "{\"fault\":\"rm -rf\"}",
                           "{\"identity\":{}}", "{\"identity\":7}", "{\"fault\":\"slow\",\"more\":1}"}) {
    EXPECT_FALSE(parse_to_agent(line).ok()) << line;
  }
  EXPECT_FALSE(parse_from_agent(std::string(kAgentLineMax, '[')).ok());
  EXPECT_FALSE(parse_from_agent(std::string(kAgentLineMax + 1, ' ')).ok());
}

// Replaces the first `from` in a valid identity line.
std::string bent(const std::string& from, const std::string& to) {
  std::string line = encode(ToAgent{an_identity(), ""});
  const std::size_t at = line.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return line.replace(at, from.size(), to);
}

TEST(AgentLink, RefusesIdentitiesOutOfRange) {
  EXPECT_TRUE(parse_to_agent(bent("\"slot\":2", "\"slot\":3")).ok());
  EXPECT_FALSE(parse_to_agent(bent("\"slot\":2", "\"slot\":65536")).ok());
  EXPECT_FALSE(parse_to_agent(bent("\"slot\":2", "\"slot\":-1")).ok());
  EXPECT_FALSE(parse_to_agent(bent("\"slot\":2", "\"slot\":2.5")).ok());
  EXPECT_FALSE(parse_to_agent(bent("\"slot\":2", "\"slot\":\"2\"")).ok());
  EXPECT_FALSE(parse_to_agent(bent("\"slot\":2", "\"slot\":2,\"extra\":1")).ok());
  EXPECT_FALSE(parse_to_agent(bent(",\"slot\":2", "")).ok());
  EXPECT_FALSE(parse_to_agent(bent("000102", "0001")).ok());
  EXPECT_FALSE(parse_to_agent(bent("000102", "0001zz")).ok());
}

TEST(AgentLink, RefusesEveryTruncation) {
  const std::string whole = encode(ToAgent{an_identity(), ""});
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(parse_to_agent(std::string_view(whole).substr(0, size)).ok()) << size;
  }
}

}  // namespace
}  // namespace zz::agreement
