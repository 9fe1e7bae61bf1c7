#pragma once

// Conversations as text: a file of commands, each followed by what must come of it.
//
//   # a comment
//   command key=value key=value
//   ----
//   the expected output, up to an empty line
//
// With ZZ_REWRITE=1 in the environment the expected parts are written anew instead of compared; read the difference
// before you commit it. Any thread.

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace zz::agreement::testing {

struct TranscriptCommand {
  std::string name;
  std::map<std::string, std::string> arguments;

  [[nodiscard]] bool has(const std::string& key) const { return arguments.contains(key); }
  // The argument as text, number or list of numbers separated by commas; a failure of the test when it is missing.
  [[nodiscard]] std::string text(const std::string& key) const;
  [[nodiscard]] std::int64_t number(const std::string& key) const;
  [[nodiscard]] std::vector<std::int64_t> numbers(const std::string& key) const;
};

// Carries out one command and returns what came of it, lines ended by newlines.
using TranscriptActor = std::function<std::string(const TranscriptCommand&)>;

// Fails the running test for every command whose output is not the expected one.
void play_transcript(const std::string& path, const TranscriptActor& actor);

}  // namespace zz::agreement::testing
