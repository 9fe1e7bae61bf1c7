#include "execution/webdav_sample.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <system_error>

namespace zz::execution {

namespace fs = std::filesystem;

namespace {

constexpr const char* kNginx = "/usr/sbin/nginx";
constexpr const char* kDavModule = "/usr/lib/nginx/modules/ngx_http_dav_ext_module.so";

// Paths are relative to the slot's working directory, which is given as the prefix; listen.conf, next to it, is
// written by the command because nginx reads no environment. No dates, tags, versions or ports in replies: they
// differ by replica. Bodies are gathered in the state, since from another file system nginx would copy them, with the
// time of the machine; in few writes, since each is a round trip.
constexpr const char* kConfiguration = R"(load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {
  worker_connections 64;
}
http {
  access_log off;
  server_tokens off;
  etag off;
  if_modified_since off;
  absolute_redirect off;
  default_type application/octet-stream;
  types {
    text/html html;
    text/plain txt;
  }
  client_max_body_size 8m;
  client_body_buffer_size 256k;
  client_body_temp_path state/tmp;
  proxy_temp_path tmp/proxy;
  fastcgi_temp_path tmp/fastcgi;
  uwsgi_temp_path tmp/uwsgi;
  scgi_temp_path tmp/scgi;
  keepalive_timeout 1h;
  keepalive_requests 1000000;
  server {
    include listen.conf;
    root state/files;
    location / {
      dav_methods PUT DELETE MKCOL COPY MOVE;
      dav_ext_methods PROPFIND OPTIONS;
      create_full_put_path on;
      dav_access user:rw;
    }
  }
}
)";

// Braces leave the variables to the shell: a path may hold anything.
constexpr const char* kCommand =
    "mkdir -p tmp && cp \"${STATE}/nginx.conf\" nginx.conf && echo \"listen 127.0.0.1:${PORT};\" > listen.conf && "
    "exec /usr/sbin/nginx -p \"$PWD\" -c \"$PWD/nginx.conf\" -e stderr";

Result<void> make_directory(const fs::path& path) {
  std::error_code error;
  fs::create_directory(path, error);
  if (error) return Error{"cannot make " + path.string() + ": " + error.message()};
  return {};
}

}  // namespace

Result<WebService> make_webdav_sample(const std::string& dir) {
  if (access(kNginx, X_OK) != 0) return Error{std::string("there is no ") + kNginx + ": install Debian's nginx-light"};
  if (access(kDavModule, R_OK) != 0)
    return Error{std::string("there is no ") + kDavModule + ": install Debian's libnginx-mod-http-dav-ext"};
  const fs::path root(dir);
  for (const fs::path& path : {root, root / "files", root / "tmp"}) {
    if (auto made = make_directory(path); !made) return Error{made.error()};
  }
  std::ofstream file(root / "nginx.conf");
  file << kConfiguration;
  if (!file.flush()) return Error{"cannot write " + (root / "nginx.conf").string()};

  WebService out;
  out.command = {"/bin/sh", "-c", kCommand};
  out.initial_state = dir;
  // File times differ between replicas; nothing else in a listing does.
  out.http.drop_body_patterns = {"207:<D:getlastmodified>[^<]*</D:getlastmodified>\\n?",
                                 "207:<D:creationdate>[^<]*</D:creationdate>\\n?"};
  return out;
}

}  // namespace zz::execution
