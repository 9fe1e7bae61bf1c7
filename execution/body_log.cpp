#include "execution/body_log.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace zz::execution {

namespace {

constexpr std::uint64_t kChunk = state::kObjectBytesMax;

}  // namespace

std::optional<std::uint64_t> BodyLog::append(ByteView body) {
  if (body.size() > bytes_max_ || body.size() >= layout::kNoBody) return std::nullopt;
  const std::uint64_t position = end_;
  while (!body.empty()) {
    const std::size_t part = std::min<std::size_t>(body.size(), kChunk - tail_.size());
    tail_.insert(tail_.end(), body.begin(), body.begin() + static_cast<std::ptrdiff_t>(part));
    body = body.subspan(part);
    std::uint64_t chunk = front() / kChunk;
    end_ += part;
    for (; chunk < front() / kChunk; ++chunk) {
      const state::Outcome out = store_.erase(layout::body_chunk(chunk));
      ZZ_ASSERT(out.status != state::Status::kMissing);
    }
    if (tail_.size() < kChunk) continue;
    const state::Outcome out = store_.write(layout::body_chunk(end_ / kChunk - 1), tail_);
    ZZ_ASSERT(out.status == state::Status::kDone);
    tail_.clear();
  }
  return position;
}

BodyLog::Found BodyLog::read(std::uint64_t position, std::uint32_t length) const {
  Found out;
  if (position < front() || position > end_ || length > end_ - position) return out;
  const std::uint64_t tail_at = end_ - tail_.size();
  Bytes bytes;
  std::optional<SharedBytes> whole;  // it lies in one chunk
  std::uint64_t at = position;
  const std::uint64_t past = position + length;
  while (at < past && at < tail_at) {
    const std::uint64_t chunk = at / kChunk;
    const std::size_t offset = at % kChunk;
    const std::size_t part = std::min<std::uint64_t>(past - at, kChunk - offset);
    at += part;
    const state::ReadOutcome read = store_.read(layout::body_chunk(chunk));
    if (read.status == state::Status::kMissing) {
      out.missing.push_back(read.want);
      continue;
    }
    if (read.status != state::Status::kDone || read.bytes.size() != kChunk) return {};
    if (part == length) {
      whole = read.bytes.slice(offset, part);
    } else {
      const ByteView view = read.bytes.view().subspan(offset, part);
      bytes.insert(bytes.end(), view.begin(), view.end());
    }
  }
  if (!out.missing.empty()) return out;
  if (whole) {
    out.body = std::move(whole);
    return out;
  }
  if (at < past) {
    const auto from = tail_.begin() + static_cast<std::ptrdiff_t>(at - tail_at);
    bytes.insert(bytes.end(), from, from + static_cast<std::ptrdiff_t>(past - at));
  }
  out.body = SharedBytes(std::move(bytes));
  return out;
}

void BodyLog::save() {
  const state::Outcome out = store_.write(layout::kBodyTail, tail_);
  ZZ_ASSERT(out.status == state::Status::kDone);
}

bool BodyLog::load(std::uint64_t end, const SharedBytes& tail) {
  if (end > layout::kPositionMax || tail.size() != end % kChunk) return false;
  end_ = end;
  tail_.assign(tail.view().begin(), tail.view().end());
  return true;
}

state::Totals BodyLog::reserve(std::uint64_t bytes_max) {
  const std::uint64_t chunks = bytes_max / kChunk + 2;  // one begun at the front, and the tail's object
  return {chunks + 1, (chunks + 1) * kChunk};
}

}  // namespace zz::execution
