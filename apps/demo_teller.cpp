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

double DemoTeller::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

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
  progress_at_ = std::chrono::steady_clock::now();
}

void DemoTeller::detail(std::string_view text) { line(fmt::format("{:>16}{}", "", text)); }

void DemoTeller::progress(std::string_view text) {
  const auto now = std::chrono::steady_clock::now();
  if (now < progress_at_) return;
  progress_at_ =
      now + (terminal_ ? std::chrono::duration_cast<std::chrono::steady_clock::duration>(kRewriteEvery) : kPrintEvery);
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
