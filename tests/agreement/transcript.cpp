#include "tests/agreement/transcript.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace zz::agreement::testing {
namespace {

constexpr char kRule[] = "----";

TranscriptCommand parse(const std::string& line) {
  TranscriptCommand command;
  std::istringstream words(line);
  words >> command.name;
  std::string word;
  while (words >> word) {
    const std::size_t equals = word.find('=');
    command.arguments[word.substr(0, equals)] = equals == std::string::npos ? "" : word.substr(equals + 1);
  }
  return command;
}

bool rewriting() {
  const char* wish = std::getenv("ZZ_REWRITE");
  return wish != nullptr && std::string(wish) == "1";
}

}  // namespace

std::string TranscriptCommand::text(const std::string& key) const {
  const auto at = arguments.find(key);
  if (at == arguments.end()) {
    ADD_FAILURE() << "'" << name << "' needs " << key << "=";
    return {};
  }
  return at->second;
}

std::int64_t TranscriptCommand::number(const std::string& key) const {
  const auto all = numbers(key);
  return all.empty() ? 0 : all[0];
}

std::vector<std::int64_t> TranscriptCommand::numbers(const std::string& key) const {
  std::vector<std::int64_t> out;
  std::istringstream items(text(key));
  std::string item;
  while (std::getline(items, item, ',')) {
    std::int64_t value = 0;
    std::istringstream digits(item);
    if (digits >> value) {
      out.push_back(value);
    } else {
      ADD_FAILURE() << "'" << name << "': not a number: " << key << "=" << item;
    }
  }
  return out;
}

void play_transcript(const std::string& path, const TranscriptActor& actor) {
  std::ifstream in(path);
  ASSERT_TRUE(in) << "cannot read " << path;
  std::string rewritten;
  std::string line;
  std::size_t number = 0;
  std::size_t commands = 0;
  while (std::getline(in, line)) {
    ++number;
    rewritten += line + "\n";
    if (line.empty() || line[0] == '#') continue;
    const std::size_t of_command = number;
    const TranscriptCommand command = parse(line);
    const std::string actual = actor(command);
    std::string expected;
    if (std::getline(in, line) && line == kRule)
      ++number;
    else
      ASSERT_TRUE(rewriting()) << path << ":" << number << ": a command is followed by " << kRule;
    while (std::getline(in, line) && !line.empty()) {
      ++number;
      expected += line + "\n";
    }
    ++number;
    ++commands;
    rewritten += std::string(kRule) + "\n" + actual + "\n";
    if (!rewriting()) {
      EXPECT_EQ(actual, expected) << path << ":" << of_command;
    }
  }
  in.close();
  ASSERT_GT(commands, 0u) << path;
  if (!rewriting()) return;
  while (rewritten.ends_with("\n\n")) rewritten.pop_back();
  std::ofstream(path, std::ios::trunc) << rewritten;
}

}  // namespace zz::agreement::testing
