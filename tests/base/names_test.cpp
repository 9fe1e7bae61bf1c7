#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/observer.hpp"
#include "base/refusal.hpp"

namespace zz {
namespace {

TEST(Refusals, EveryReasonHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int i = 0; i < static_cast<int>(Refusal::kCount); ++i) {
    const std::string name(to_string(static_cast<Refusal>(i)));
    EXPECT_NE(name, "unknown") << "reason " << i;
    EXPECT_TRUE(names.insert(name).second) << name;
  }
}

TEST(Refusals, AreCountedPerReason) {
  RefusalCounts counts;
  counts.add(Refusal::kMalformed);
  counts.add(Refusal::kMalformed);
  counts.add(Refusal::kNotAllowed);
  EXPECT_EQ(counts.of(Refusal::kMalformed), 2u);
  EXPECT_EQ(counts.of(Refusal::kNotAllowed), 1u);
  EXPECT_EQ(counts.of(Refusal::kOversize), 0u);
}

TEST(Events, EveryKindHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(EventKind::kRefused); ++i) {
    const std::string name(to_string(static_cast<EventKind>(i)));
    EXPECT_NE(name, "unknown") << "kind " << i;
    EXPECT_TRUE(names.insert(name).second) << name;
  }
}

}  // namespace
}  // namespace zz
