/// Ends libFuzzer's program where an input takes more than 25 seconds of processor time. Its own -timeout is a clock on the wall, which goes on
/// while others have the processor. Linked with --wrap=LLVMFuzzerTestOneInput.
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include <sys/time.h>
#include <unistd.h>

namespace {

void allow(long seconds) {
    itimerval time{};
    time.it_value.tv_sec = seconds;
    setitimer(ITIMER_PROF, &time, nullptr);
}

void too_long(int) {
    constexpr char words[] = "time: want at most 25 seconds of processor time for this input\n";
    [[maybe_unused]] const auto written = ::write(2, words, sizeof words - 1);
    std::abort();  // libFuzzer leaves the input
}

[[maybe_unused]] const auto before = std::signal(SIGPROF, &too_long);

}  // namespace

extern "C" int __real_LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" int __wrap_LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    allow(25);
    const int answer = __real_LLVMFuzzerTestOneInput(data, size);
    allow(0);
    return answer;
}
