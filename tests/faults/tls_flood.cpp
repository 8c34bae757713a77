// SPDX-License-Identifier: Apache-2.0
// A TLS 1.3 peer that means harm: after an honest handshake it writes its own records, as many and as small as it likes, at the speed of
// its socket. `blkferry-tls-flood KIND connect|listen PORT SECONDS ALPN CERT KEY CA BYTES` (files of PEM, "-" for none). The first BYTES of stdin
// are sent as data in large records; what follows is what the kinds with data send, again and again. Says on stdout, as JSON, what it sent and
// how it ended.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

using Bytes = std::vector<std::uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr std::size_t hash_bytes = 48;  // of TLS_AES_256_GCM_SHA384
constexpr std::uint8_t handshake_type = 22;
constexpr std::uint8_t data_type = 23;
constexpr std::size_t built_at_once = 20'000;

Bytes data;    // what the kinds with data send
std::size_t data_at = 0;
Bytes secret;  // of the direction that this end sends in
bool serves = false;

[[noreturn]] void die(const char* what) {
    std::fprintf(stderr, "blkferry-tls-flood: %s\n", what);
    ERR_print_errors_fp(stderr);
    std::exit(2);
}

void on_key(const SSL*, const char* line) {
    const std::string text(line);
    const std::string label = serves ? "SERVER_TRAFFIC_SECRET_0 " : "CLIENT_TRAFFIC_SECRET_0 ";
    if (!text.starts_with(label))
        return;
    const std::string hex = text.substr(text.rfind(' ') + 1);
    secret.clear();
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        secret.push_back(static_cast<std::uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
}

/// HKDF-Expand-Label (RFC 8446, 7.1) for up to one hash of bytes.
Bytes expand(const Bytes& from, const std::string& label, std::size_t bytes) {
    const std::string full = "tls13 " + label;
    Bytes info{0, static_cast<std::uint8_t>(bytes), static_cast<std::uint8_t>(full.size())};
    info.insert(info.end(), full.begin(), full.end());
    info.push_back(0);
    info.push_back(1);
    Bytes out(hash_bytes);
    HMAC(EVP_sha384(), from.data(), static_cast<int>(from.size()), info.data(), info.size(), out.data(), nullptr);
    out.resize(bytes);
    return out;
}

/// Writes records as RFC 8446, 5.2 says, with the keys of the handshake.
class Sealer {
public:
    Sealer() { rekey(); }
    ~Sealer() { EVP_CIPHER_CTX_free(cipher_); }
    Sealer(const Sealer&) = delete;
    Sealer& operator=(const Sealer&) = delete;

    void record(std::uint8_t type, const Bytes& content, Bytes& out) {
        Bytes inner = content;
        inner.push_back(type);
        const std::size_t length = inner.size() + 16;
        const std::array<std::uint8_t, 5> head{data_type, 3, 3, static_cast<std::uint8_t>(length >> 8), static_cast<std::uint8_t>(length)};
        Bytes nonce = iv_;
        for (std::size_t i = 0; i < 8; ++i)
            nonce[11 - i] ^= static_cast<std::uint8_t>(number_ >> (8 * i));
        ++number_;
        const std::size_t at = out.size();
        out.insert(out.end(), head.begin(), head.end());
        out.resize(at + 5 + length);
        int n = 0;
        if (EVP_EncryptInit_ex(cipher_, nullptr, nullptr, nullptr, nonce.data()) != 1 ||
            EVP_EncryptUpdate(cipher_, nullptr, &n, head.data(), 5) != 1 ||
            EVP_EncryptUpdate(cipher_, out.data() + at + 5, &n, inner.data(), static_cast<int>(inner.size())) != 1 ||
            EVP_EncryptFinal_ex(cipher_, nullptr, &n) != 1 ||
            EVP_CIPHER_CTX_ctrl(cipher_, EVP_CTRL_GCM_GET_TAG, 16, out.data() + at + 5 + inner.size()) != 1)
            die("cannot encrypt");
    }
    void next_keys() {
        secret = expand(secret, "traffic upd", hash_bytes);
        rekey();
    }

private:
    void rekey() {
        const Bytes key = expand(secret, "key", 32);
        iv_ = expand(secret, "iv", 12);
        number_ = 0;
        if (EVP_EncryptInit_ex(cipher_, EVP_aes_256_gcm(), nullptr, key.data(), nullptr) != 1)
            die("cannot set a key");
    }
    EVP_CIPHER_CTX* cipher_ = EVP_CIPHER_CTX_new();
    Bytes iv_;
    std::uint64_t number_ = 0;
};

Bytes next_byte() { return data.empty() ? Bytes{0} : Bytes{data[data_at++ % data.size()]}; }

/// The next records of a kind. A KeyUpdate changes the keys of all that follows.
void build(const std::string& kind, Sealer& sealer, Bytes& out) {
    for (std::size_t i = 0; i < built_at_once; ++i) {
        if (kind == "key-update" || kind == "key-update-asked") {
            sealer.record(handshake_type, {24, 0, 0, 1, static_cast<std::uint8_t>(kind == "key-update" ? 0 : 1)}, out);
            sealer.next_keys();
        } else if (kind == "ticket") {  // life, age_add, nonce, ticket, no extension
            sealer.record(handshake_type, {4, 0, 0, 14, 0, 0, 14, 16, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0}, out);
        } else if (kind == "empty") {
            sealer.record(data_type, {}, out);
        } else if (kind == "almost-empty") {  // as many empty ones as OpenSSL takes in a row, then a byte
            sealer.record(data_type, i % 32 == 31 ? next_byte() : Bytes{}, out);
        } else if (kind == "bytes") {
            sealer.record(data_type, next_byte(), out);
        } else {
            die("no such kind");
        }
    }
}

int connected(bool listening, int port) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    if (!listening)
        return ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0 ? fd : -1;
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (::bind(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0 || ::listen(fd, 4) != 0)
        return -1;
    return ::accept(fd, nullptr, nullptr);
}

SSL* shake(int fd, const std::string& alpn, const char* cert, const char* key, const char* ca) {
    SSL_CTX* context = SSL_CTX_new(serves ? TLS_server_method() : TLS_client_method());
    SSL_CTX_set_keylog_callback(context, on_key);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384");
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(context, 0);
    if (*cert != '-' && (SSL_CTX_use_certificate_file(context, cert, SSL_FILETYPE_PEM) != 1 ||
                         SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1))
        die("cannot read the certificate");
    if (*ca != '-' && SSL_CTX_load_verify_locations(context, ca, nullptr) != 1)
        die("cannot read the CA");
    const std::string list = static_cast<char>(alpn.size()) + alpn;
    SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(list.data()), static_cast<unsigned>(list.size()));
    if (serves) {
        SSL_CTX_set_alpn_select_cb(context, [](SSL*, const unsigned char** out, unsigned char* n, const unsigned char* in, unsigned, void*) {
            *n = in[0];
            *out = in + 1;
            return SSL_TLSEXT_ERR_OK;
        }, nullptr);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, [](int, X509_STORE_CTX*) { return 1; });
    }
    SSL* ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if ((serves ? SSL_accept(ssl) : SSL_connect(ssl)) != 1)
        return nullptr;
    return ssl;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 10)
        die("KIND connect|listen PORT SECONDS ALPN CERT KEY CA BYTES");
    std::string kind = argv[1];
    const bool deaf = kind.ends_with("-unread");  // reads none of the answers
    if (deaf)
        kind.erase(kind.size() - std::strlen("-unread"));
    serves = std::string(argv[2]) == "listen";
    Bytes out;
    for (int c = 0; (c = std::getchar()) != EOF;)
        out.push_back(static_cast<std::uint8_t>(c));
    Bytes first = std::exchange(out, {});
    const auto split = first.begin() + std::min(std::atol(argv[9]), static_cast<long>(first.size()));
    data.assign(split, first.end());
    first.erase(split, first.end());
    const int fd = connected(serves, std::atoi(argv[3]));
    if (fd < 0)
        die("no connection");
    if (shake(fd, argv[5], argv[6], argv[7], argv[8]) == nullptr || secret.size() != hash_bytes) {
        std::puts(R"({"handshake": false, "sent": 0, "seconds": 0, "end": "refused"})");
        return 0;
    }
    Sealer sealer;
    for (std::size_t at = 0; at < first.size(); at += 16000)
        sealer.record(data_type, Bytes(first.begin() + static_cast<long>(at), first.begin() + static_cast<long>(std::min(first.size(), at + 16000))), out);
    ::fcntl(fd, F_SETFL, O_NONBLOCK);
    std::size_t sent = 0;
    std::uint64_t total = 0;
    const char* end = "time";
    const auto began = Clock::now();
    const auto until = began + std::chrono::milliseconds(static_cast<long>(std::atof(argv[4]) * 1000));
    std::array<std::uint8_t, 65536> bin{};
    while (Clock::now() < until) {
        if (sent == out.size()) {
            out.clear();
            sent = 0;
            build(kind, sealer, out);
        }
        pollfd p{fd, static_cast<short>(POLLOUT | (deaf ? 0 : POLLIN)), 0};
        ::poll(&p, 1, 100);
        if (!deaf && (p.revents & POLLIN) != 0) {
            const auto n = ::recv(fd, bin.data(), bin.size(), 0);
            if (n == 0 || (n < 0 && errno != EAGAIN)) {
                end = n == 0 ? "closed" : "reset";
                break;
            }
        }
        if ((p.revents & (POLLOUT | POLLERR | POLLHUP)) == 0)
            continue;
        const auto n = ::send(fd, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            continue;
        if (n < 0) {
            end = "closed";
            break;
        }
        sent += static_cast<std::size_t>(n);
        total += static_cast<std::uint64_t>(n);
    }
    std::printf(R"({"handshake": true, "sent": %llu, "seconds": %.3f, "end": "%s"})" "\n", static_cast<unsigned long long>(total),
                std::chrono::duration<double>(Clock::now() - began).count(), end);
    ::close(fd);
    return 0;
}
