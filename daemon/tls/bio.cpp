// SPDX-License-Identifier: Apache-2.0
#include "tls/bio.hpp"

#include <algorithm>
#include <cerrno>

#include <sys/socket.h>

namespace blkferry::tls {

namespace {

SocketIo& io_of(BIO* bio) noexcept { return *static_cast<SocketIo*>(BIO_get_data(bio)); }

int finish(BIO* bio, SocketIo& io, ssize_t n, std::size_t* moved, int retry_flag, std::uint64_t& counter) {
    if (n > 0) {
        *moved = static_cast<std::size_t>(n);
        counter += *moved;
        return 1;
    }
    *moved = 0;
    if (n < 0) {
        io.last_errno = errno;
        if (io.last_errno == EAGAIN || io.last_errno == EWOULDBLOCK || io.last_errno == EINTR)
            BIO_set_flags(bio, retry_flag | BIO_FLAGS_SHOULD_RETRY);
    }
    return 0;
}

int bio_write(BIO* bio, const char* data, std::size_t size, std::size_t* written) {
    BIO_clear_retry_flags(bio);
    SocketIo& io = io_of(bio);
    ssize_t n = 0;
    do
        n = ::send(io.fd, data, size, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return finish(bio, io, n, written, BIO_FLAGS_WRITE, io.out);
}

int bio_read(BIO* bio, char* data, std::size_t size, std::size_t* got) {
    BIO_clear_retry_flags(bio);
    SocketIo& io = io_of(bio);
    if (io.allowance == 0) {  // the socket stays readable, so poll tells of the rest
        *got = 0;
        BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
        return 0;
    }
    ssize_t n = 0;
    do
        n = ::recv(io.fd, data, std::min(size, io.allowance), 0);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    if (n > 0)
        io.allowance -= static_cast<std::size_t>(n);
    return finish(bio, io, n, got, BIO_FLAGS_READ, io.in);
}

long bio_ctrl(BIO* bio, int command, long, void*) {
    switch (command) {
        case BIO_CTRL_EOF: return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
        case BIO_CTRL_FLUSH:
        case BIO_CTRL_DUP: return 1;
        default: return 0;
    }
}

const BIO_METHOD* socket_method() {
    static const BioMethodPtr method = [] {
        BioMethodPtr m(BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR, "blkferry socket"));
        if (m) {
            BIO_meth_set_write_ex(m.get(), bio_write);
            BIO_meth_set_read_ex(m.get(), bio_read);
            BIO_meth_set_ctrl(m.get(), bio_ctrl);
        }
        return m;
    }();
    return method.get();
}

}  // namespace

BioPtr make_socket_bio(SocketIo& io) {
    const BIO_METHOD* method = socket_method();
    BioPtr bio(method != nullptr ? BIO_new(method) : nullptr);
    if (bio) {
        BIO_set_data(bio.get(), &io);
        BIO_set_init(bio.get(), 1);
    }
    return bio;
}

}  // namespace blkferry::tls
