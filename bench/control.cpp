// SPDX-License-Identifier: Apache-2.0
// The control row of the pipeline benchmark: a naive but careful pipeline, one thread a side, that a good engineer would
// write in a day. Random 4 KiB blocks are gathered from a ring into batches of 1 MiB, compressed, hashed (XXH3), sent
// over TLS 1.3; the other process verifies and appends to an O_DIRECT journal with fdatasync every 8 MiB. With --apply a
// second thread of that process also writes each block to its place in an image, made durable every 256 MiB and at the end
// (else the journal could never be cut).
//
//   bench_control --codec none|lz4|zstd --data FILE|random --mib N --journal FILE [--apply FILE --image-mib N] [--seed N]
//
// The seed says which blocks go where. Runs over one image want different ones: the same again would find every block of the
// image allocated, which a writer of new random places does not.
//
// Prints one JSON line: payload bytes, wall seconds to the last durable byte and to the last applied one, CPU seconds of
// each process.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "base/hash.hpp"
#include "codec/compress.hpp"

namespace {

using namespace blkferry;

constexpr std::size_t block = 4096;
constexpr std::size_t batch_bytes = std::size_t{1} << 20;
constexpr std::size_t ring_bytes = std::size_t{64} << 20;
constexpr std::size_t sync_bytes = std::size_t{8} << 20;
constexpr std::size_t blocks = batch_bytes / block;
constexpr std::size_t table_bytes = blocks * 8;               // where each block belongs, bytes
constexpr std::size_t head_bytes = 24 + table_bytes;          // u32 codec, u32 wire length, u64 hash, u64 last, table
constexpr std::size_t checkpoint_bytes = std::size_t{256} << 20;
constexpr std::size_t queue_max = 16;                         // batches that wait to be applied

[[noreturn]] void die(std::string_view what) {
    std::fprintf(stderr, "bench_control: %.*s: %s\n", static_cast<int>(what.size()), what.data(), std::strerror(errno));
    std::exit(1);
}

struct Options {
    Codec codec = Codec::none;
    std::string data = "random";
    std::size_t bytes = std::size_t{512} << 20;
    std::string journal = "control.journal";
    std::string apply;  // empty: the journal is all
    std::size_t image_bytes = std::size_t{1} << 30;
    std::uint64_t seed = 2;
};

Options parse(int argc, char** argv) {
    Options o;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string_view key = argv[i];
        if (key == "--codec") {
            const auto codec = parse_codec(argv[i + 1]);
            if (!codec)
                die("unknown codec");
            o.codec = *codec;
        } else if (key == "--data") {
            o.data = argv[i + 1];
        } else if (key == "--mib") {
            o.bytes = std::strtoull(argv[i + 1], nullptr, 10) << 20;
        } else if (key == "--journal") {
            o.journal = argv[i + 1];
        } else if (key == "--apply") {
            o.apply = argv[i + 1];
        } else if (key == "--image-mib") {
            o.image_bytes = std::strtoull(argv[i + 1], nullptr, 10) << 20;
        } else if (key == "--seed") {
            o.seed = std::strtoull(argv[i + 1], nullptr, 10);
        } else {
            die("unknown option");
        }
    }
    return o;
}

std::vector<std::byte> make_ring(const Options& o) {
    std::vector<std::byte> ring(ring_bytes);
    if (o.data == "random") {
        std::mt19937_64 gen(1);
        for (std::size_t at = 0; at < ring.size(); at += 8)
            store_le<std::uint64_t>(ring.data() + at, gen());
        return ring;
    }
    auto fd = open_file(o.data, O_RDONLY);
    if (!fd)
        die(o.data);
    std::size_t at = 0;
    while (at < ring.size()) {
        const ssize_t n = ::pread(fd->get(), ring.data() + at, ring.size() - at, static_cast<off_t>(at));
        if (n <= 0)
            break;
        at += static_cast<std::size_t>(n);
    }
    if (at == 0)
        die("empty data file");
    for (std::size_t i = at; i < ring.size(); ++i)
        ring[i] = ring[i - at];
    return ring;
}

void write_all(SSL* ssl, std::span<const std::byte> data) {
    std::size_t n = 0;
    if (SSL_write_ex(ssl, data.data(), data.size(), &n) != 1 || n != data.size())
        die("SSL_write");
}

void read_all(SSL* ssl, std::span<std::byte> data) {
    while (!data.empty()) {
        std::size_t n = 0;
        if (SSL_read_ex(ssl, data.data(), data.size(), &n) != 1)
            die("SSL_read");
        data = data.subspan(n);
    }
}

void source(SSL* ssl, const Options& o, const std::vector<std::byte>& ring) {
    Compressor compressor(o.codec, 1);
    std::mt19937_64 gen(o.seed);
    std::vector<std::byte> batch(batch_bytes);
    std::vector<std::byte> table(table_bytes);
    std::vector<std::byte> out;
    for (std::size_t done = 0; done < o.bytes; done += batch_bytes) {
        for (std::size_t at = 0; at < batch_bytes; at += block)
            std::memcpy(batch.data() + at, ring.data() + (gen() % (ring_bytes / block)) * block, block);
        out.assign(head_bytes, std::byte{0});
        for (std::size_t i = 0; i < blocks; ++i)
            store_le<std::uint64_t>(table.data() + i * 8, gen() % (o.image_bytes / block) * block);
        const bool smaller = compressor.compress(batch, out);
        if (!smaller)
            out.insert(out.end(), batch.begin(), batch.end());
        store_le<std::uint32_t>(out.data(), static_cast<std::uint32_t>(smaller ? o.codec : Codec::none));
        store_le<std::uint32_t>(out.data() + 4, static_cast<std::uint32_t>(out.size() - head_bytes));
        store_le<std::uint64_t>(out.data() + 8, xxh3(batch));
        store_le<std::uint64_t>(out.data() + 16, done + batch_bytes >= o.bytes ? 1 : 0);
        std::ranges::copy(table, out.begin() + 24);
        write_all(ssl, out);
    }
    std::byte ack{};
    read_all(ssl, {&ack, 1});
}

/// Writes the blocks of verified batches to the image, in order, in a thread of its own.
class Applier {
public:
    explicit Applier(const Options& o) {
        if (o.apply.empty())
            return;
        auto fd = open_file(o.apply, O_WRONLY | O_CREAT);
        if (!fd || ::ftruncate(fd->get(), static_cast<off_t>(o.image_bytes)) != 0)
            die(o.apply);
        image_ = std::move(*fd);
        thread_ = std::thread([this] { run(); });
    }
    ~Applier() { finish(); }
    Applier(const Applier&) = delete;
    Applier& operator=(const Applier&) = delete;

    void push(std::span<const std::byte> table, std::span<const std::byte> body) {
        if (!thread_.joinable())
            return;
        Batch b{{table.begin(), table.end()}, {body.begin(), body.end()}};
        std::unique_lock held(lock_);
        changed_.wait(held, [this] { return queue_.size() < queue_max; });
        queue_.push_back(std::move(b));
        changed_.notify_all();
    }
    void finish() {
        if (!thread_.joinable())
            return;
        {
            const std::scoped_lock held(lock_);
            queue_.emplace_back(std::nullopt);
            changed_.notify_all();
        }
        thread_.join();
    }

private:
    struct Batch {
        std::vector<std::byte> table;
        std::vector<std::byte> body;
    };
    void run() {
        for (;;) {
            std::unique_lock held(lock_);
            changed_.wait(held, [this] { return !queue_.empty(); });
            const std::optional<Batch> b = std::move(queue_.front());
            queue_.pop_front();
            changed_.notify_all();
            held.unlock();
            unsynced_ += batch_bytes;
            if ((!b || unsynced_ >= checkpoint_bytes) && ::fdatasync(image_.get()) != 0)
                die("image fdatasync");
            if (!b)
                return;
            unsynced_ %= checkpoint_bytes;
            for (std::size_t i = 0; i < blocks; ++i)
                if (!write_full_at(image_.get(), {b->body.data() + i * block, block},
                                   load_le<std::uint64_t>(b->table.data() + i * 8), "image"))
                    die("image write");
        }
    }

    Fd image_;
    std::size_t unsynced_ = 0;
    std::mutex lock_;
    std::condition_variable changed_;
    std::deque<std::optional<Batch>> queue_;
    std::thread thread_;
};

void server(SSL* ssl, const Options& o) {
    Applier applier(o);
    auto fd = open_file(o.journal, O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT);
    if (!fd)
        die(o.journal);
    Decompressor decompressor;
    std::vector<std::byte> raw(batch_bytes);
    const std::size_t room = batch_bytes + head_bytes + 2 * block;
    std::unique_ptr<std::byte, decltype(&std::free)> aligned(
        static_cast<std::byte*>(std::aligned_alloc(block, room)), &std::free);
    std::uint64_t at = 0;
    std::size_t unsynced = 0;
    for (bool last = false; !last;) {
        std::byte* wire = aligned.get();
        read_all(ssl, {wire, head_bytes});
        const auto codec = static_cast<Codec>(load_le<std::uint32_t>(wire));
        const std::size_t length = load_le<std::uint32_t>(wire + 4);
        last = load_le<std::uint64_t>(wire + 16) != 0;
        if (length > batch_bytes)
            die("oversized batch");
        read_all(ssl, {wire + head_bytes, length});
        std::span<const std::byte> body(wire + head_bytes, length);
        if (codec != Codec::none) {
            if (!decompressor.decompress(codec, body, raw))
                die("decompress");
            body = raw;
        }
        if (xxh3(body) != load_le<std::uint64_t>(wire + 8))
            die("checksum");
        applier.push({wire + 24, table_bytes}, body);
        const std::size_t padded = (head_bytes + length + block - 1) / block * block;
        std::memset(wire + head_bytes + length, 0, padded - head_bytes - length);
        if (!write_full_at(fd->get(), {wire, padded}, at, "journal"))
            die("journal write");
        at += padded;
        unsynced += padded;
        if (unsynced >= sync_bytes || last) {
            if (::fdatasync(fd->get()) != 0)
                die("fdatasync");
            unsynced = 0;
        }
    }
    const std::byte ack{1};
    write_all(ssl, {&ack, 1});
    applier.finish();
    write_all(ssl, {&ack, 1});
}

struct Identity {
    std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key{nullptr, &EVP_PKEY_free};
    std::unique_ptr<X509, decltype(&X509_free)> cert{nullptr, &X509_free};
};

Identity self_signed() {
    Identity id;
    id.key.reset(EVP_EC_gen("P-256"));
    id.cert.reset(X509_new());
    X509_set_version(id.cert.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(id.cert.get()), 0);
    X509_gmtime_adj(X509_getm_notAfter(id.cert.get()), 86400);
    X509_set_pubkey(id.cert.get(), id.key.get());
    X509_sign(id.cert.get(), id.key.get(), EVP_sha256());
    return id;
}

double cpu_s(const rusage& u) {
    return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

SSL* tls(int fd, const SSL_METHOD* method, const Identity* id) {
    SSL_CTX* context = SSL_CTX_new(method);
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    if (id != nullptr) {
        SSL_CTX_use_certificate(context, id->cert.get());
        SSL_CTX_use_PrivateKey(context, id->key.get());
    }
    SSL* ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    return ssl;
}

}  // namespace

int main(int argc, char** argv) {
    const Options o = parse(argc, argv);
    const Identity id = self_signed();
    const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* sa = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener.get(), sa, length) != 0 || ::listen(listener.get(), 1) != 0 ||
        ::getsockname(listener.get(), sa, &length) != 0)
        die("listen");
    const pid_t child = ::fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        const int fd = ::accept(listener.get(), nullptr, nullptr);
        SSL* ssl = tls(fd, TLS_server_method(), &id);
        if (SSL_accept(ssl) != 1)
            die("SSL_accept");
        server(ssl, o);
        std::_Exit(0);
    }
    const std::vector<std::byte> ring = make_ring(o);
    const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(fd.get(), sa, length) != 0)
        die("connect");
    const int one = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    SSL* ssl = tls(fd.get(), TLS_client_method(), nullptr);
    if (SSL_connect(ssl) != 1)
        die("SSL_connect");
    rusage before{};
    ::getrusage(RUSAGE_SELF, &before);
    const auto begin = std::chrono::steady_clock::now();
    source(ssl, o, ring);
    const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    rusage self{};
    rusage other{};
    ::getrusage(RUSAGE_SELF, &self);
    std::byte applied{};
    read_all(ssl, {&applied, 1});
    const double applied_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    int status = 0;
    ::waitpid(child, &status, 0);
    ::getrusage(RUSAGE_CHILDREN, &other);
    std::printf("{\"bytes\": %zu, \"wall_s\": %.4f, \"applied_s\": %.4f, \"source_cpu_s\": %.4f, \"server_cpu_s\": %.4f}\n",
                o.bytes, wall, applied_s,
                cpu_s(self) - cpu_s(before), cpu_s(other));
    return status == 0 ? 0 : 1;
}
