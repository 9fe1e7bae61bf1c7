#pragma once

// Result<T>: a value, or an Error that is the environment's fault (disk, socket, configuration). The text is
// one line that names the thing and the way out, fit to print. Result<void> carries success or an Error.

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/assert.hpp"

namespace zz {

struct Error {
  std::string text;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit on purpose
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit on purpose

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  // value() requires ok(); error() requires !ok().
  [[nodiscard]] T& value() & {
    ZZ_ASSERT(ok());
    return std::get<0>(state_);
  }
  [[nodiscard]] const T& value() const& {
    ZZ_ASSERT(ok());
    return std::get<0>(state_);
  }
  [[nodiscard]] T&& value() && {
    ZZ_ASSERT(ok());
    return std::get<0>(std::move(state_));
  }
  [[nodiscard]] const std::string& error() const {
    ZZ_ASSERT(!ok());
    return std::get<1>(state_).text;
  }
  [[nodiscard]] T& operator*() & { return value(); }
  [[nodiscard]] const T& operator*() const& { return value(); }
  [[nodiscard]] T* operator->() { return &value(); }
  [[nodiscard]] const T* operator->() const { return &value(); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose
  [[nodiscard]] bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  [[nodiscard]] const std::string& error() const {
    ZZ_ASSERT(!ok());
    return error_->text;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace zz
