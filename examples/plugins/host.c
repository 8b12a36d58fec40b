/* Loads two plugins with names in common scope, asks both the same at the same time, unloads one while the other one goes on, then the other one; and
 * once more, in the other order.
 * usage: host MODEL PLUGIN PLUGIN */
#define _GNU_SOURCE
#include "plugin.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct loaded {
    const char* path; /* absolute, as the system tells it */
    void* handle;
    const plugin* of;
    void* self;
    const char* question;
    char text[4096];
    int failed;
} loaded;

static void expect(int ok, const char* what, const char* which) {
    if (ok) return;
    fprintf(stderr, "failed: %s: %s\n", which, what);
    exit(1);
}

static int is_mapped(const char* path) {
    char line[4096];
    int found = 0;
    FILE* const maps = fopen("/proc/self/maps", "r");
    expect(maps != NULL, "cannot be read", "/proc/self/maps");
    while (fgets(line, sizeof line, maps) != NULL) found = found || strstr(line, path) != NULL;
    fclose(maps);
    return found;
}

/* RTLD_GLOBAL: what either exports is seen by the other one, the hardest case. */
static void load(loaded* p, const char* model) {
    p->handle = dlopen(p->path, RTLD_NOW | RTLD_GLOBAL);
    expect(p->handle != NULL, p->handle == NULL ? dlerror() : "", p->path);
    expect(is_mapped(p->path), "it is loaded, and not in /proc/self/maps", p->path);
    const plugin* (*get)(void) = NULL;
    *(void**)&get = dlsym(p->handle, "get_plugin");
    expect(get != NULL, "it has no get_plugin", p->path);
    p->of = get();
    p->self = p->of->open(model, p->text, sizeof p->text);
    expect(p->self != NULL, p->text, p->path);
}

static void unload(loaded* p) {
    p->of->close(p->self);
    expect(dlclose(p->handle) == 0, "dlclose", p->path);
    expect(dlopen(p->path, RTLD_NOW | RTLD_NOLOAD) == NULL && !is_mapped(p->path), "it is still there after dlclose", p->path);
}

static void* ask(void* given) {
    loaded* const p = given;
    p->failed = p->of->ask(p->self, p->question, p->text, sizeof p->text);
    return NULL;
}

static void ask_both(loaded* a, loaded* b) {
    pthread_t other;
    a->question = b->question = "What is 347 + 285?";
    expect(pthread_create(&other, NULL, ask, b) == 0, "no thread", "host");
    ask(a);
    pthread_join(other, NULL);
    expect(!a->failed, a->text, a->path);
    expect(!b->failed, b->text, b->path);
    expect(strstr(a->text, "boxed{632}") != NULL, a->text, a->path);
    expect(strcmp(a->text, b->text) == 0, "another answer than the other one's", b->path);
}

/* The first one is unloaded first. */
static void talk(const char* model, const char* first, const char* second) {
    loaded a = {.path = first};
    loaded b = {.path = second};
    load(&a, model);
    load(&b, model);
    printf("%s: phi4flash %s, kernels %s\n", a.path, a.of->version, a.of->kernels);
    printf("%s: phi4flash %s, kernels %s\n", b.path, b.of->version, b.of->kernels);
    expect(strcmp(a.of->version, b.of->version) != 0, "the same version as the other one's", b.path);
    expect(strcmp(a.of->kernels, b.of->kernels) != 0, "the same kernels as the other one's", b.path);
    ask_both(&a, &b);
    printf("both: %s\n", a.text);
    unload(&a);
    b.question = "What is 12 + 30?";
    ask(&b);
    expect(!b.failed && strstr(b.text, "boxed{42}") != NULL, b.text, b.path);
    unload(&b);
    printf("unloaded, one and then the other\n");
}

int main(int argc, char** argv) {
    if (argc != 4) return fprintf(stderr, "usage: host MODEL PLUGIN PLUGIN\n"), 2;
    talk(argv[1], argv[2], argv[3]);
    talk(argv[1], argv[3], argv[2]);
    return 0;
}
