#include "apps/gateway_body.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/assert.hpp"
#include "execution/http_canonical.hpp"

namespace zz::apps {

BodyReader::BodyReader(const RequestHead& head, std::uint64_t body_bytes_max)
    : state_(head.chunked ? State::kSizeLine : State::kFixed), body_bytes_max_(body_bytes_max) {
  if (head.chunked) return;
  left_ = head.content_length.value_or(0);
  if (left_ == 0) state_ = State::kDone;
}

void BodyReader::refuse(unsigned status, std::string reason) {
  state_ = State::kRefused;
  refusal_ = {status, std::move(reason)};
}

std::size_t BodyReader::feed(std::string_view data) {
  ZZ_ASSERT(!done() && !refused());
  std::size_t used = 0;
  while (used < data.size() && !done() && !refused()) {
    if (state_ == State::kFixed || state_ == State::kData) {
      used += take_data(data.substr(used));
    } else {
      take_framing(data[used++]);
    }
  }
  return used;
}

std::size_t BodyReader::take_data(std::string_view data) {
  const std::size_t size = static_cast<std::size_t>(std::min<std::uint64_t>(left_, data.size()));
  body_.append(data.substr(0, size));
  left_ -= size;
  if (left_ == 0) state_ = state_ == State::kFixed ? State::kDone : State::kDataEnd;
  return size;
}

void BodyReader::take_framing(char c) {
  if (++framing_bytes_ > kChunkOverheadBytesMax + 8 * body_.size()) {
    return refuse(400, "the chunked body is mostly framing");
  }
  if (after_cr_) {
    if (c != '\n') return refuse(400, "a carriage return stands without its line feed in the chunked body");
    after_cr_ = false;
    return end_line();
  }
  if (c == '\r') {
    after_cr_ = true;
    return;
  }
  const auto u = static_cast<unsigned char>(c);
  if (state_ == State::kDataEnd) return refuse(400, "a chunk is longer than its size says");
  if ((u < 0x20 && u != '\t') || u == 0x7f) return refuse(400, "a control character stands in the chunk framing");
  if (line_.size() >= kFramingLineBytesMax) return refuse(400, "a chunk-size or trailer line is too long");
  line_.push_back(c);
}

void BodyReader::end_line() {
  if (state_ == State::kDataEnd) {
    state_ = State::kSizeLine;
  } else if (state_ == State::kSizeLine) {
    end_size_line();
  } else {
    end_trailer_line();
  }
  line_.clear();
}

void BodyReader::end_size_line() {
  const std::size_t digits = std::min(line_.find(';'), line_.size());
  std::uint64_t size = 0;
  const char* end = line_.data() + digits;
  // from_chars takes neither a sign (for unsigned values), nor white space, nor "0x".
  const auto [stop, error] = std::from_chars(line_.data(), end, size, 16);
  if (digits == 0 || stop != end || error != std::errc{} || digits > kChunkSizeDigitsMax) {
    return refuse(400, "a chunk size is not a plain hexadecimal number");
  }
  if (size > body_bytes_max_ - body_.size()) {
    return refuse(413, fmt::format("the request body is longer than {} bytes", body_bytes_max_));
  }
  left_ = size;
  state_ = size == 0 ? State::kTrailer : State::kData;
}

void BodyReader::end_trailer_line() {
  if (line_.empty()) {
    state_ = State::kDone;
    return;
  }
  if (++trailer_lines_ > kTrailerLinesMax) return refuse(400, "too many trailer lines");
  const std::string_view line = line_;
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_field_name(line.substr(0, colon))) {
    return refuse(400, "a trailer line is not a header field");
  }
  const std::string_view name = line.substr(0, colon);
  if (equal_names(name, "content-length") || equal_names(name, "host") || execution::is_hop_by_hop_field(name)) {
    return refuse(400, "a trailer holds a field that frames or routes the request");
  }
}

}  // namespace zz::apps
