// What memory has to do for the instructions of a warp: how many rounds through the banks of shared memory, how many sectors of device memory.
//
// The n-th time that a lane comes to an instruction is taken for the n-th time of the other lanes of its warp, as it is where they do not part.
//     shared   32 banks of 4 bytes. 32 lanes of up to 4 bytes go through at once, of 8 bytes 16, of 16 bytes 8; in a round a bank gives one word, to all
//              who ask for it. Rounds beyond the least are bank conflicts.
//     global   memory moves in sectors of 32 bytes. The least is what the bytes that were asked for would fill.
// Counted on PTX: what ptxas makes of an access is taken to be as wide.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <tuple>

#include "scheduler.h"

namespace sim {

struct Request { uint32_t lanes; const char* address[32]; };
struct Total { uint64_t requests, units, least; };
using Instruction = std::tuple<const void*, Access, bool, size_t>;  // code, kind, whether shared, bytes of a lane

struct Traffic {
    std::map<Instruction, std::map<uint32_t, std::vector<Request>>> of_warps;  // of the block that runs
    std::map<Instruction, std::map<uint32_t, uint32_t>> visits;                // by thread
};
static thread_local Traffic traffic;
static thread_local std::map<Instruction, Total> totals;

static uint64_t rounds(const Request& r, size_t bytes, uint64_t& least) {
    const int together = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
    uint64_t sum = 0;
    for (int first = 0; first < 32; first += together) {
        std::set<uintptr_t> words;
        for (int lane = first; lane < first + together; lane++)
            if (r.lanes >> lane & 1)
                for (uintptr_t w = reinterpret_cast<uintptr_t>(r.address[lane]) / 4; w <= (reinterpret_cast<uintptr_t>(r.address[lane]) + bytes - 1) / 4; w++) words.insert(w);
        int of_bank[32] = {}, most = 0;
        for (uintptr_t w : words) most = std::max(most, ++of_bank[w % 32]);
        sum += most;
        least += (words.size() + 31) / 32;
    }
    return sum;
}

static uint64_t sectors(const Request& r, size_t bytes, uint64_t& least) {
    std::set<uintptr_t> touched, asked;
    for (int lane = 0; lane < 32; lane++)
        if (r.lanes >> lane & 1)
            for (uintptr_t b = reinterpret_cast<uintptr_t>(r.address[lane]); b < reinterpret_cast<uintptr_t>(r.address[lane]) + bytes; b++) {
                touched.insert(b / 32);
                asked.insert(b);
            }
    least += (asked.size() + 31) / 32;
    return touched.size();
}

void Scheduler::count_access(const void* address, size_t bytes, Access kind, bool is_shared, const void* code) {
    const Instruction instruction{code, kind, is_shared, bytes};
    const uint32_t visit = traffic.visits[instruction][current]++;
    std::vector<Request>& requests = traffic.of_warps[instruction][current / 32];
    if (requests.size() <= visit) requests.resize(visit + 1);
    Request& mine = requests[visit];
    mine.lanes |= 1u << current % 32;
    mine.address[current % 32] = static_cast<const char*>(address) - (is_shared ? reinterpret_cast<uintptr_t>(arena) : 0);
}

// Adds up what the block has done.
void Scheduler::end_traffic() {
    for (const auto& [instruction, warps] : traffic.of_warps) {
        Total& total = totals[instruction];
        const bool is_shared = std::get<2>(instruction);
        for (const auto& [warp, requests] : warps)
            for (const Request& r : requests) {
                total.requests++;
                total.units += is_shared ? rounds(r, std::get<3>(instruction), total.least) : sectors(r, std::get<3>(instruction), total.least);
            }
    }
    traffic = {};
}

void count_access(const void* address, size_t bytes, Access kind, bool shared) {
    scheduler->count_access(address, bytes, kind, shared, __builtin_return_address(0));
}

}  // namespace sim

// What was counted since the last time on this thread, a line for each instruction: code, r or w, s or g, bytes of a lane, requests, units, the least.
extern "C" __attribute__((visibility("default"))) const char* sim_traffic(const sim::Kernel* kernel) {
    static thread_local std::string text;
    text.clear();
    for (const auto& [instruction, total] : sim::totals) {
        const auto& [code, kind, is_shared, bytes] = instruction;
        char line[200];
        snprintf(line, sizeof line, "@code%#zx %c %c %zu %llu %llu %llu\n", static_cast<size_t>(static_cast<const char*>(code) - kernel->low), kind == sim::READ ? 'r' : 'w',
                 is_shared ? 's' : 'g', bytes, static_cast<unsigned long long>(total.requests), static_cast<unsigned long long>(total.units),
                 static_cast<unsigned long long>(total.least));
        text += line;
    }
    sim::totals.clear();
    return text.c_str();
}
