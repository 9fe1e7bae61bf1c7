#include "apps/webdav_client.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/assert.hpp"

namespace zz::apps {

namespace {

struct HandleCloser {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
struct ListCloser {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Handle = std::unique_ptr<CURL, HandleCloser>;
using HeaderLines = std::unique_ptr<curl_slist, ListCloser>;

void append(HeaderLines& lines, const std::string& line) {
  curl_slist* grown = curl_slist_append(lines.get(), line.c_str());
  ZZ_ASSERT(grown != nullptr);
  static_cast<void>(lines.release());
  lines.reset(grown);
}

struct Upload {
  std::string_view left;
};

std::size_t give_body(char* out, std::size_t size, std::size_t count, void* user) {
  auto& upload = *static_cast<Upload*>(user);
  const std::size_t n = std::min(size * count, upload.left.size());
  std::memcpy(out, upload.left.data(), n);
  upload.left.remove_prefix(n);
  return n;
}

std::size_t take_body(const char* data, std::size_t size, std::size_t count, void* user) {
  auto& body = *static_cast<std::string*>(user);
  if (body.size() + size * count > kDavReplyBytesMax) return 0;  // makes the transfer fail
  body.append(data, size * count);
  return size * count;
}

}  // namespace

bool init_webdav_clients() {
  static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  return ready;
}

struct WebdavClient::State {
  std::string base_url;
  Handle handle;
  long connections = 0;
  char error[CURL_ERROR_SIZE] = {};
};

WebdavClient::WebdavClient(std::string base_url) : state_(std::make_unique<State>()) {
  ZZ_ASSERT(init_webdav_clients());
  state_->base_url = std::move(base_url);
  state_->handle.reset(curl_easy_init());
  ZZ_ASSERT(state_->handle != nullptr);
}
WebdavClient::~WebdavClient() = default;
WebdavClient::WebdavClient(WebdavClient&&) noexcept = default;
WebdavClient& WebdavClient::operator=(WebdavClient&&) noexcept = default;

long WebdavClient::connections() const { return state_->connections; }

Result<DavReply> WebdavClient::perform(const DavRequest& request) {
  CURL* curl = state_->handle.get();
  curl_easy_reset(curl);  // keeps the connection
  DavReply reply;
  HeaderLines lines;
  Upload upload{request.body};
  const std::string url = state_->base_url + request.path;
  const std::string method(to_string(request.method));
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http");
  curl_easy_setopt(curl, CURLOPT_PROXY, "");  // never by a proxy of the environment
  curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, kDavTimeoutMs);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, state_->error);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &reply.body);
  if (request.method == DavMethod::kHead) {
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  } else if (request.method == DavMethod::kPut) {
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, give_body);
    curl_easy_setopt(curl, CURLOPT_READDATA, &upload);
    if (!request.chunked) {
      curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    }
  } else {
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method.c_str());
  }
  if (request.method == DavMethod::kPropfind) append(lines, "Depth: " + std::to_string(request.depth));
  if (request.method == DavMethod::kCopy || request.method == DavMethod::kMove) {
    append(lines, "Destination: " + state_->base_url + request.destination);
    append(lines, request.overwrite ? "Overwrite: T" : "Overwrite: F");
  }
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, lines.get());
  state_->error[0] = '\0';
  const CURLcode code = curl_easy_perform(curl);
  long made = 0;
  curl_easy_getinfo(curl, CURLINFO_NUM_CONNECTS, &made);
  state_->connections += made;
  if (code != CURLE_OK) {
    const char* words = state_->error[0] != '\0' ? state_->error : curl_easy_strerror(code);
    return Error{method + " " + request.path + ": " + words};
  }
  long status = 0;
  curl_off_t length = -1;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  reply.status = static_cast<unsigned>(status);
  if (length >= 0) reply.content_length = static_cast<std::uint64_t>(length);
  return reply;
}

}  // namespace zz::apps
