#include "apps/demo_teller.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace zz::apps {

namespace {

constexpr auto kRewriteEvery = std::chrono::milliseconds(100);
constexpr auto kPrintEvery = std::chrono::seconds(2);

}  // namespace

DemoTeller::DemoTeller(std::FILE* out, bool terminal) : out_(out), terminal_(terminal) {}
DemoTeller::~DemoTeller() { clear_progress(); }

double DemoTeller::seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

void DemoTeller::put(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), out_);
  std::fflush(out_);
}

void DemoTeller::clear_progress() {
  if (std::exchange(showing_progress_, false)) put("\r\033[K");
}

void DemoTeller::line(std::string_view text) {
  clear_progress();
  put(fmt::format("{}\n", text));
}

void DemoTeller::headline(std::string_view text) { line(fmt::format("\n{}", text)); }

void DemoTeller::step(std::string_view text) {
  line(fmt::format("{:>3}. {:>7.2f} s  {}", ++steps_, seconds(), text));
  wait_with_progress();
}

void DemoTeller::detail(std::string_view text) { line(fmt::format("{:>16}{}", "", text)); }

void DemoTeller::wait_with_progress() {
  const Clock::duration pause = terminal_ ? Clock::duration(kRewriteEvery) : Clock::duration(kPrintEvery);
  progress_at_ = Clock::now() + pause;
}

void DemoTeller::progress(std::string_view text) {
  if (Clock::now() < progress_at_) return;
  wait_with_progress();
  if (!terminal_) return put(fmt::format("{:>5}{:>7.2f} s  … {}\n", "", seconds(), text));
  showing_progress_ = true;
  put(fmt::format("\r\033[K{:>5}{:>7.2f} s  … {}", "", seconds(), text));
}

void DemoTeller::table(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::size_t left = 0;
  std::size_t right = 0;
  for (const auto& [name, value] : rows) {
    left = std::max(left, name.size());
    right = std::max(right, value.size());
  }
  for (const auto& [name, value] : rows) line(fmt::format("  {:<{}}  {:>{}}", name, left, value, right));
}

}  // namespace zz::apps
