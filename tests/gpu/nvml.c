/* Stands in for NVIDIA's libnvidia-ml.so.1: the functions that audiod calls, answering from the text file NVML_STATE.
 *
 *   driver VERSION
 *   gpu UUID TOTAL FREE NAME              in the order of their numbers
 *   slice NUMBER UUID TOTAL FREE NAME     of that GPU, which is then in MIG mode
 *   process UUID LIST PID BYTES           LIST is Compute, Graphics or MPS; BYTES is `unknown` where NVML does not know
 *   refuse FUNCTION CODE                  the function returns that nvmlReturn_t
 *   hang FUNCTION                         the function never returns
 *
 * The file is read anew at every call. Build: cc -shared -fPIC -o libnvidia-ml.so.1 nvml.c
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, MOST = 16 };

typedef struct {
    int card, sliced, slice; /* slice: it is one */
    char uuid[96], name[96];
    unsigned long long total, free;
} device_t;

typedef struct {
    char uuid[96], list[16];
    unsigned pid;
    unsigned long long bytes;
} process_t;

typedef struct {
    char driver[80];
    device_t devices[MOST];
    process_t processes[MOST];
    int device_count, process_count, cards, refused;
} state_t;

typedef struct {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
} process_info_t; /* nvmlProcessInfo_t of version 3 */

static state_t look(const char *function)
{
    state_t state = {0};
    char line[512], name[96], bytes[32];
    int card, code;
    FILE *file = fopen(getenv("NVML_STATE"), "r");
    while (fgets(line, sizeof line, file)) {
        device_t *device = &state.devices[state.device_count];
        process_t *process = &state.processes[state.process_count];
        if (sscanf(line, "driver %79s", state.driver) == 1)
            continue;
        if (sscanf(line, "gpu %95s %llu %llu %95[^\n]", device->uuid, &device->total, &device->free, device->name) == 4) {
            device->card = state.cards++;
            state.device_count++;
        } else if (sscanf(line, "slice %d %95s %llu %llu %95[^\n]", &card, device->uuid, &device->total, &device->free,
                          device->name) == 5) {
            device->card = card;
            device->slice = 1;
            for (int i = 0; i < state.device_count; i++)
                if (state.devices[i].card == card)
                    state.devices[i].sliced = 1;
            state.device_count++;
        } else if (sscanf(line, "process %95s %15s %u %31s", process->uuid, process->list, &process->pid, bytes) == 4) {
            process->bytes = strcmp(bytes, "unknown") ? strtoull(bytes, NULL, 10) : ~0ULL;
            state.process_count++;
        } else if (sscanf(line, "refuse %95s %d", name, &code) == 2 && !strcmp(name, function)) {
            state.refused = code;
        } else if (sscanf(line, "hang %95s", name) == 1 && !strcmp(name, function)) {
            for (;;)
                pause();
        }
    }
    fclose(file);
    return state;
}

/* A handle is the device's place in the file, counted from 1. */
static device_t *of(state_t *state, void *handle)
{
    return &state->devices[(size_t)handle - 1];
}

#define LOOK                                                                                                           \
    state_t state = look(__func__);                                                                                    \
    if (state.refused)                                                                                                 \
        return state.refused

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    LOOK;
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    LOOK;
    snprintf(version, length, "%s", state.driver);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    LOOK;
    *count = (unsigned)state.cards;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    LOOK;
    for (int i = 0; i < state.device_count; i++)
        if (!state.devices[i].slice && state.devices[i].card == (int)index) {
            *handle = (void *)(size_t)(i + 1);
            return SUCCESS;
        }
    return INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle)
{
    LOOK;
    for (int i = 0; i < state.device_count; i++)
        if (!strcmp(state.devices[i].uuid, uuid)) {
            *handle = (void *)(size_t)(i + 1);
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length)
{
    LOOK;
    snprintf(uuid, length, "%s", of(&state, handle)->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned length)
{
    LOOK;
    snprintf(name, length, "%s", of(&state, handle)->name);
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor)
{
    (void)handle;
    LOOK;
    *major = 8, *minor = 6;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *memory)
{
    LOOK;
    device_t *device = of(&state, handle);
    memory[0] = device->total, memory[1] = device->free, memory[2] = device->total - device->free;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending)
{
    LOOK;
    *current = *pending = (unsigned)of(&state, handle)->sliced;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count)
{
    (void)handle;
    LOOK;
    *count = 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **slice)
{
    LOOK;
    unsigned number = 0;
    for (int i = 0; i < state.device_count; i++)
        if (state.devices[i].slice && state.devices[i].card == of(&state, handle)->card && number++ == index) {
            *slice = (void *)(size_t)(i + 1);
            return SUCCESS;
        }
    return NOT_FOUND;
}

static int list(state_t *state, void *handle, const char *name, unsigned *count, process_info_t *infos)
{
    unsigned room = *count, found = 0;
    for (int i = 0; i < state->process_count; i++) {
        process_t *process = &state->processes[i];
        if (strcmp(process->list, name) || strcmp(process->uuid, of(state, handle)->uuid))
            continue;
        if (infos && found < room)
            infos[found] = (process_info_t){process->pid, process->bytes, ~0U, ~0U};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_info_t *infos)
{
    LOOK;
    return list(&state, handle, "Compute", count, infos);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process_info_t *infos)
{
    LOOK;
    return list(&state, handle, "Graphics", count, infos);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *handle, unsigned *count, process_info_t *infos)
{
    LOOK;
    return list(&state, handle, "MPS", count, infos);
}
