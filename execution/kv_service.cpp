#include "execution/kv_service.hpp"

#include <charconv>
#include <optional>
#include <utility>

namespace zz::execution {

namespace {

// The text up to the first space, and what follows it.
std::pair<std::string_view, std::string_view> cut(std::string_view text) {
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos) return {text, {}};
  return {text.substr(0, space), text.substr(space + 1)};
}

std::optional<std::int64_t> integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Bytes reply(std::string_view text) {
  const ByteView bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

Bytes KvService::execute(const Invocation& invocation) {
  const std::string_view op = invocation.op.text();
  const auto [verb, rest] = cut(op);
  if (op == "time") return reply(std::to_string(invocation.time.value));
  if (op == "seed") return reply(to_hex(invocation.seed.bytes));
  const auto [key, value] = cut(rest);
  if (key.empty()) return reply("error expected put KEY VALUE, get KEY, del KEY, add KEY N, time or seed");
  if (key.size() > kKeyBytesMax) return reply("error key too long");
  const bool has_value = key.size() < rest.size();
  if (verb == "put" && has_value) return reply(put(key, value));
  if (verb == "add" && has_value) return reply(add(key, value));
  if (verb == "del" && !has_value) return reply(erase(key));
  if (verb == "get" && !has_value) {
    const auto found = values_.find(key);
    return reply(found == values_.end() ? std::string_view("none") : std::string_view(found->second));
  }
  return reply("error expected put KEY VALUE, get KEY, del KEY, add KEY N, time or seed");
}

std::string KvService::put(std::string_view key, std::string_view value) {
  const auto found = values_.find(key);
  const std::size_t before = found == values_.end() ? 0 : key.size() + found->second.size();
  if (bytes_ - before + key.size() + value.size() > kBytesMax) return "error full";
  bytes_ += key.size() + value.size() - before;
  if (found == values_.end()) {
    values_.emplace(key, value);
  } else {
    found->second = value;
  }
  return "ok";
}

std::string KvService::add(std::string_view key, std::string_view amount) {
  const auto found = values_.find(key);
  const auto old = found == values_.end() ? std::optional<std::int64_t>(0) : integer(found->second);
  const auto step = integer(amount);
  std::int64_t sum = 0;
  if (!old || !step) return "error not an integer";
  if (__builtin_add_overflow(*old, *step, &sum)) return "error out of range";
  std::string text = std::to_string(sum);
  const std::string answer = put(key, text);
  return answer == "ok" ? text : answer;
}

std::string KvService::erase(std::string_view key) {
  const auto found = values_.find(key);
  if (found == values_.end()) return "none";
  bytes_ -= found->first.size() + found->second.size();
  values_.erase(found);
  return "ok";
}

}  // namespace zz::execution
