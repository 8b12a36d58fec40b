/* A node for Godot 4, over its C interface (gdextension_interface.h) and nothing else of it.
 *
 *   properties  model_path, budget_milliseconds (of thinking in a frame), max_tokens
 *   methods     ask(question), interrupt(), is_thinking(), get_longest_thought() in microseconds
 *   signals     token(text), finished(answer), failed(message)
 *
 * The node thinks every frame, on the main thread, within its budget, also where a script of the node's has a _process. The model is opened at
 * the first question. */
#include "gdextension_interface.h"

#include <phi4flash/phi4flash.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Godot's values ----------------------------------------------------------------------------------------------------------------- */

/* Their sizes are Godot's business; these are at least as large in every build of it. */
typedef struct variant { _Alignas(8) unsigned char of[40]; } variant;
typedef struct string { _Alignas(8) unsigned char of[8]; } string; /* a String or a StringName */

static struct {
    GDExtensionInterfaceStringNewWithUtf8CharsAndLen string_new;
    GDExtensionInterfaceStringToUtf8Chars string_to_utf8;
    GDExtensionInterfaceStringNameNewWithUtf8Chars name_new;
    GDExtensionInterfaceVariantCall variant_call;
    GDExtensionInterfaceVariantDestroy variant_destroy;
    GDExtensionInterfaceVariantGetType variant_type;
    GDExtensionInterfaceClassdbConstructObject2 construct;
    GDExtensionInterfaceObjectSetInstance set_instance;
    GDExtensionInterfaceClassdbRegisterExtensionClass5 register_class;
    GDExtensionInterfaceClassdbRegisterExtensionClassMethod register_method;
    GDExtensionInterfaceClassdbRegisterExtensionClassProperty register_property;
    GDExtensionInterfaceClassdbRegisterExtensionClassSignal register_signal;
    GDExtensionInterfaceClassdbUnregisterExtensionClass unregister_class;
    GDExtensionPtrDestructor string_destroy, name_destroy;
    GDExtensionVariantFromTypeConstructorFunc variant_of[GDEXTENSION_VARIANT_TYPE_VARIANT_MAX];
    GDExtensionTypeFromVariantConstructorFunc of_variant[GDEXTENSION_VARIANT_TYPE_VARIANT_MAX];
    GDExtensionClassLibraryPtr library;
} godot;

static string make_string(const char* text, size_t length) {
    string s;
    godot.string_new(&s, text, (GDExtensionInt)length);
    return s;
}
static string make_name(const char* text) {
    string s;
    godot.name_new(&s, text);
    return s;
}
/* To be freed. */
static char* text_of(const string* s) {
    const GDExtensionInt length = godot.string_to_utf8(s, NULL, 0);
    char* const text = calloc((size_t)length + 1, 1);
    if (text != NULL) godot.string_to_utf8(s, text, length);
    return text;
}

/* ---- the node ------------------------------------------------------------------------------------------------------------------------ */

typedef struct node {
    GDExtensionObjectPtr object;
    char* model_path;
    int64_t budget_milliseconds, max_tokens, longest_thought;
    phi4flash_model* model;
    phi4flash_tokenizer* tokenizer;
    phi4flash_workspace* workspace;
    phi4flash_session* session; /* of the question that is under way; NULL: none */
    phi4flash_generation* generation;
    char* answer;
    size_t answer_length;
} node;

/* Calls a method of the object's, and destroys the arguments. */
static void call_object(node* n, const char* name, variant* arguments, GDExtensionInt count) {
    variant self, nothing;
    const GDExtensionConstVariantPtr given[2] = {&arguments[0], count > 1 ? &arguments[1] : NULL};
    string method = make_name(name);
    GDExtensionCallError error;
    godot.variant_of[GDEXTENSION_VARIANT_TYPE_OBJECT](&self, &n->object);
    godot.variant_call(&self, &method, given, count, &nothing, &error);
    godot.variant_destroy(&nothing);
    for (GDExtensionInt i = 0; i < count; ++i) godot.variant_destroy(&arguments[i]);
    godot.variant_destroy(&self);
    godot.name_destroy(&method);
}

static void emit(node* n, const char* name, const char* text, size_t length) {
    variant arguments[2];
    string signal = make_name(name), said = make_string(text, length);
    godot.variant_of[GDEXTENSION_VARIANT_TYPE_STRING_NAME](&arguments[0], &signal);
    godot.variant_of[GDEXTENSION_VARIANT_TYPE_STRING](&arguments[1], &said);
    call_object(n, "emit_signal", arguments, 2);
    godot.string_destroy(&said);
    godot.name_destroy(&signal);
}

static void end_question(node* n) {
    phi4flash_generation_destroy(n->generation);
    phi4flash_session_destroy(n->session);
    free(n->answer);
    n->generation = NULL, n->session = NULL, n->answer = NULL, n->answer_length = 0;
}

static void close_model(node* n) {
    end_question(n);
    phi4flash_workspace_destroy(n->workspace);
    phi4flash_tokenizer_destroy(n->tokenizer);
    phi4flash_model_destroy(n->model);
    n->workspace = NULL, n->tokenizer = NULL, n->model = NULL;
}

static phi4flash_code have_model(node* n, phi4flash_error* error) {
    if (n->model != NULL) return PHI4FLASH_OK;
    const phi4flash_workspace_options how = {.size = sizeof how, .chunk = 32, .threads = PHI4FLASH_ALL_CORES}; /* short pieces of prompts */
    const char* const path = n->model_path != NULL ? n->model_path : "";
    phi4flash_code code = phi4flash_model_open(path, strlen(path), NULL, &n->model, error);
    if (code == PHI4FLASH_OK) code = phi4flash_tokenizer_open(n->model, &n->tokenizer, error);
    if (code == PHI4FLASH_OK) code = phi4flash_workspace_create(n->model, &how, &n->workspace, error);
    if (code != PHI4FLASH_OK) close_model(n);
    return code;
}

static phi4flash_code no_memory(phi4flash_error* error) {
    strcpy(error->message, "out of memory");
    return error->code = PHI4FLASH_OUT_OF_MEMORY;
}

static phi4flash_code begin_question(node* n, const char* question, phi4flash_error* error) {
    if (question == NULL) return no_memory(error);
    const phi4flash_chat_message message = {
        .size = sizeof message, .role = "user", .role_length = 4, .content = question, .content_length = strlen(question)};
    const phi4flash_generation_options options = {.size = sizeof options, .max_tokens = (uint64_t)n->max_tokens};
    size_t count = 0;
    phi4flash_code code = have_model(n, error);
    if (code != PHI4FLASH_OK) return code;
    end_question(n); /* the one before is given up */
    code = phi4flash_tokenizer_encode_chat(n->tokenizer, &message, 1, NULL, NULL, 0, &count, error); /* how long? */
    if (code != PHI4FLASH_BUFFER_TOO_SMALL) return code;
    int32_t* const prompt = malloc(count * sizeof *prompt);
    if (prompt == NULL) return no_memory(error);
    const phi4flash_session_options room = {.size = sizeof room, .context = count + options.max_tokens};
    code = phi4flash_tokenizer_encode_chat(n->tokenizer, &message, 1, NULL, prompt, count, &count, error);
    if (code == PHI4FLASH_OK) code = phi4flash_session_create(n->model, &room, &n->session, error);
    if (code == PHI4FLASH_OK) code = phi4flash_generation_create(n->workspace, n->tokenizer, &options, &n->generation, error);
    if (code == PHI4FLASH_OK) code = phi4flash_generation_start(n->generation, n->session, prompt, count, error);
    free(prompt);
    if (code != PHI4FLASH_OK) end_question(n);
    return code;
}

static int64_t microseconds(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Every frame: thinks until the budget is used up, or a token has come. Signals may end the question, or ask the next one. */
static void think(node* n) {
    if (n->generation == NULL) return;
    const phi4flash_budget budget = {.size = sizeof budget, .microseconds = (uint64_t)n->budget_milliseconds * 1000};
    phi4flash_event event = {.size = sizeof event};
    phi4flash_error error;
    const int64_t begin = microseconds();
    phi4flash_code code = phi4flash_generation_advance(n->generation, &budget, &event, &error);
    const int64_t took = microseconds() - begin;
    if (took > n->longest_thought) n->longest_thought = took;
    const size_t before = n->answer_length;
    if (code == PHI4FLASH_OK && event.text_length != 0) {
        char* const longer = realloc(n->answer, before + event.text_length);
        if (longer != NULL) {
            memcpy(longer + before, event.text, event.text_length);
            n->answer = longer;
            n->answer_length += event.text_length;
        } else {
            code = no_memory(&error);
        }
    }
    if (code != PHI4FLASH_OK) {
        end_question(n);
        emit(n, "failed", error.message, strlen(error.message));
        return;
    }
    const int ended = event.kind == PHI4FLASH_EVENT_END;
    if (ended) {
        char* const answer = n->answer;
        const size_t length = n->answer_length;
        n->answer = NULL;
        end_question(n);
        if (length > before) emit(n, "token", answer + before, length - before);
        emit(n, "finished", answer != NULL ? answer : "", length);
        free(answer);
    } else if (n->answer_length > before) {
        char* const text = malloc(n->answer_length - before); /* a slot may ask the next question */
        const size_t length = n->answer_length - before;
        if (text == NULL) return;
        memcpy(text, n->answer + before, length);
        emit(n, "token", text, length);
        free(text);
    }
}

/* ---- methods: at most one argument, a text or a number ------------------------------------------------------------------------------- */

typedef struct value {
    char* text;
    int64_t number;
} value;

static void ask_method(node* n, const value* given, value* back) {
    phi4flash_error error;
    error.message[0] = '\0';
    const phi4flash_code code = begin_question(n, given->text, &error);
    back->number = code == PHI4FLASH_OK;
    if (code != PHI4FLASH_OK) emit(n, "failed", error.message, strlen(error.message));
}
static void interrupt_method(node* n, const value* given, value* back) {
    (void)given, (void)back;
    if (n->generation != NULL) phi4flash_generation_cancel(n->generation, NULL); /* the next frame tells the end */
}
static void is_thinking_method(node* n, const value* given, value* back) {
    (void)given;
    back->number = n->generation != NULL;
}
static void set_model_path(node* n, const value* given, value* back) {
    (void)back;
    close_model(n);
    free(n->model_path);
    n->model_path = given->text != NULL ? strdup(given->text) : NULL;
}
static void get_model_path(node* n, const value* given, value* back) {
    (void)given;
    back->text = n->model_path;
}
static void set_budget(node* n, const value* given, value* back) {
    (void)back;
    n->budget_milliseconds = given->number > 0 ? given->number : 1;
}
static void get_budget(node* n, const value* given, value* back) {
    (void)given;
    back->number = n->budget_milliseconds;
}
static void set_max_tokens(node* n, const value* given, value* back) {
    (void)back;
    n->max_tokens = given->number > 0 ? given->number : 1;
}
static void get_max_tokens(node* n, const value* given, value* back) {
    (void)given;
    back->number = n->max_tokens;
}
static void get_longest_thought(node* n, const value* given, value* back) {
    (void)given;
    back->number = n->longest_thought;
}

#define NONE GDEXTENSION_VARIANT_TYPE_NIL
#define TEXT GDEXTENSION_VARIANT_TYPE_STRING
#define NUMBER GDEXTENSION_VARIANT_TYPE_INT
#define YES_OR_NO GDEXTENSION_VARIANT_TYPE_BOOL

typedef struct method {
    const char* name;
    GDExtensionVariantType given, back;
    void (*run)(node*, const value*, value*);
} method;

static const method methods[] = {
    {"ask", TEXT, YES_OR_NO, ask_method},
    {"interrupt", NONE, NONE, interrupt_method},
    {"is_thinking", NONE, YES_OR_NO, is_thinking_method},
    {"set_model_path", TEXT, NONE, set_model_path},
    {"get_model_path", NONE, TEXT, get_model_path},
    {"set_budget_milliseconds", NUMBER, NONE, set_budget},
    {"get_budget_milliseconds", NONE, NUMBER, get_budget},
    {"set_max_tokens", NUMBER, NONE, set_max_tokens},
    {"get_max_tokens", NONE, NUMBER, get_max_tokens},
    {"get_longest_thought", NONE, NUMBER, get_longest_thought},
};

/* With values of Godot's own types. */
static void call_typed(void* given, GDExtensionClassInstancePtr instance, const GDExtensionConstTypePtr* arguments, GDExtensionTypePtr back) {
    const method* const m = given;
    value in = {NULL, 0}, out = {NULL, 0};
    if (m->given == TEXT) in.text = text_of(arguments[0]);
    if (m->given == NUMBER) memcpy(&in.number, arguments[0], sizeof in.number);
    m->run(instance, &in, &out);
    free(in.text);
    if (m->back == NUMBER) memcpy(back, &out.number, sizeof out.number);
    if (m->back == YES_OR_NO) *(GDExtensionBool*)back = out.number != 0;
    if (m->back == TEXT) {
        godot.string_destroy(back);
        *(string*)back = make_string(out.text != NULL ? out.text : "", out.text != NULL ? strlen(out.text) : 0);
    }
}

/* The same with variants, as scripts call. */
static void call(void* given, GDExtensionClassInstancePtr instance, const GDExtensionConstVariantPtr* arguments, GDExtensionInt n,
                 GDExtensionVariantPtr back, GDExtensionCallError* error) {
    const method* const m = given;
    const GDExtensionInt want = m->given != NONE;
    _Alignas(8) unsigned char in[16] = {0}, out[16] = {0};
    const GDExtensionConstTypePtr typed[1] = {in};
    if (n != want) {
        error->error = n < want ? GDEXTENSION_CALL_ERROR_TOO_FEW_ARGUMENTS : GDEXTENSION_CALL_ERROR_TOO_MANY_ARGUMENTS;
        error->expected = (int32_t)want;
        return;
    }
    if (want == 1 && godot.variant_type(arguments[0]) != m->given) {
        error->error = GDEXTENSION_CALL_ERROR_INVALID_ARGUMENT;
        error->expected = (int32_t)m->given;
        return;
    }
    if (want == 1) godot.of_variant[m->given](in, (GDExtensionVariantPtr)arguments[0]);
    if (m->back == TEXT) *(string*)out = make_string("", 0);
    call_typed(given, instance, typed, out);
    if (m->given == TEXT) godot.string_destroy(in);
    if (m->back != NONE) godot.variant_of[m->back](back, out);
    if (m->back == TEXT) godot.string_destroy(out);
    error->error = GDEXTENSION_CALL_OK;
}

/* ---- the class ------------------------------------------------------------------------------------------------------------------------ */

static GDExtensionObjectPtr create(void* data, GDExtensionBool notify) {
    (void)data;
    node* const n = calloc(1, sizeof *n);
    if (n == NULL) return NULL;
    n->budget_milliseconds = 4;
    n->max_tokens = 1000;
    string parent = make_name("Node"), own = make_name("Phi4Flash");
    n->object = godot.construct(&parent);
    godot.set_instance(n->object, &own, n);
    godot.name_destroy(&own);
    godot.name_destroy(&parent);
    if (notify) { /* what Godot would have told an object of its own */
        const int64_t postinitialize = 0;
        variant what;
        godot.variant_of[GDEXTENSION_VARIANT_TYPE_INT](&what, (void*)&postinitialize);
        call_object(n, "notification", &what, 1);
    }
    return n->object;
}

static void destroy(void* data, GDExtensionClassInstancePtr instance) {
    (void)data;
    node* const n = instance;
    close_model(n);
    free(n->model_path);
    free(n);
}

/* The internal process, as that of a script's takes the place of ours in _process. */
static void notified(GDExtensionClassInstancePtr instance, int32_t what, GDExtensionBool reversed) {
    enum { ready = 13, internal_process = 25 };
    (void)reversed;
    if (what == internal_process) think(instance);
    if (what != ready) return;
    const GDExtensionBool yes = 1;
    variant on;
    godot.variant_of[GDEXTENSION_VARIANT_TYPE_BOOL](&on, (void*)&yes);
    call_object(instance, "set_process_internal", &on, 1);
}

static void add_methods(string* own, string* empty) {
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; ++i) {
        const method* const m = &methods[i];
        string name = make_name(m->name), argument = make_name(m->given == TEXT ? "text" : "number"), hint = make_string("", 0);
        GDExtensionPropertyInfo given = {.type = m->given, .name = &argument, .class_name = empty, .hint_string = &hint, .usage = 6};
        GDExtensionPropertyInfo back = {.type = m->back, .name = empty, .class_name = empty, .hint_string = &hint, .usage = 6};
        GDExtensionClassMethodArgumentMetadata metadata = GDEXTENSION_METHOD_ARGUMENT_METADATA_NONE;
        const GDExtensionClassMethodInfo info = {.name = &name,
                                                 .method_userdata = (void*)m,
                                                 .call_func = call,
                                                 .ptrcall_func = call_typed,
                                                 .method_flags = GDEXTENSION_METHOD_FLAGS_DEFAULT,
                                                 .has_return_value = m->back != NONE,
                                                 .return_value_info = &back,
                                                 .argument_count = m->given != NONE,
                                                 .arguments_info = &given,
                                                 .arguments_metadata = &metadata};
        godot.register_method(godot.library, own, &info);
        godot.string_destroy(&hint);
        godot.name_destroy(&argument);
        godot.name_destroy(&name);
    }
}

static void add_properties(string* own, string* empty) {
    static const struct {
        const char *name, *setter, *getter;
        GDExtensionVariantType type;
    } properties[] = {{"model_path", "set_model_path", "get_model_path", TEXT},
                      {"budget_milliseconds", "set_budget_milliseconds", "get_budget_milliseconds", NUMBER},
                      {"max_tokens", "set_max_tokens", "get_max_tokens", NUMBER}};
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; ++i) {
        string name = make_name(properties[i].name), setter = make_name(properties[i].setter), getter = make_name(properties[i].getter);
        string hint = make_string("", 0);
        const GDExtensionPropertyInfo info = {
            .type = properties[i].type, .name = &name, .class_name = empty, .hint_string = &hint, .usage = 6};
        godot.register_property(godot.library, own, &info, &setter, &getter);
        godot.string_destroy(&hint);
        godot.name_destroy(&getter);
        godot.name_destroy(&setter);
        godot.name_destroy(&name);
    }
}

static void add_signals(string* own, string* empty) {
    static const char* const signals[][2] = {{"token", "text"}, {"finished", "answer"}, {"failed", "message"}};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; ++i) {
        string name = make_name(signals[i][0]), argument = make_name(signals[i][1]), hint = make_string("", 0);
        const GDExtensionPropertyInfo info = {
            .type = GDEXTENSION_VARIANT_TYPE_STRING, .name = &argument, .class_name = empty, .hint_string = &hint, .usage = 6};
        godot.register_signal(godot.library, own, &name, &info, 1);
        godot.string_destroy(&hint);
        godot.name_destroy(&argument);
        godot.name_destroy(&name);
    }
}

static void initialize(void* data, GDExtensionInitializationLevel level) {
    (void)data;
    if (level != GDEXTENSION_INITIALIZATION_SCENE) return;
    string own = make_name("Phi4Flash"), parent = make_name("Node"), empty = make_name("");
    const GDExtensionClassCreationInfo5 info = {
        .is_exposed = 1, .is_runtime = 1, .create_instance_func = create, .free_instance_func = destroy, .notification_func = notified};
    godot.register_class(godot.library, &own, &parent, &info);
    add_methods(&own, &empty);
    add_properties(&own, &empty);
    add_signals(&own, &empty);
    godot.name_destroy(&empty);
    godot.name_destroy(&parent);
    godot.name_destroy(&own);
}

static void deinitialize(void* data, GDExtensionInitializationLevel level) {
    (void)data;
    if (level != GDEXTENSION_INITIALIZATION_SCENE) return;
    string own = make_name("Phi4Flash");
    godot.unregister_class(godot.library, &own);
    godot.name_destroy(&own);
}

/* The entry that phi4flash.gdextension names. */
GDExtensionBool phi4flash_godot_init(GDExtensionInterfaceGetProcAddress find, GDExtensionClassLibraryPtr library, GDExtensionInitialization* how) {
#define FIND(member, type, name) if ((godot.member = (GDExtensionInterface##type)(void*)find(name)) == NULL) return 0
    FIND(string_new, StringNewWithUtf8CharsAndLen, "string_new_with_utf8_chars_and_len");
    FIND(string_to_utf8, StringToUtf8Chars, "string_to_utf8_chars");
    FIND(name_new, StringNameNewWithUtf8Chars, "string_name_new_with_utf8_chars");
    FIND(variant_call, VariantCall, "variant_call");
    FIND(variant_destroy, VariantDestroy, "variant_destroy");
    FIND(variant_type, VariantGetType, "variant_get_type");
    FIND(construct, ClassdbConstructObject2, "classdb_construct_object2");
    FIND(set_instance, ObjectSetInstance, "object_set_instance");
    FIND(register_class, ClassdbRegisterExtensionClass5, "classdb_register_extension_class5");
    FIND(register_method, ClassdbRegisterExtensionClassMethod, "classdb_register_extension_class_method");
    FIND(register_property, ClassdbRegisterExtensionClassProperty, "classdb_register_extension_class_property");
    FIND(register_signal, ClassdbRegisterExtensionClassSignal, "classdb_register_extension_class_signal");
    FIND(unregister_class, ClassdbUnregisterExtensionClass, "classdb_unregister_extension_class");
#undef FIND
    const GDExtensionInterfaceVariantGetPtrDestructor destructor_of =
        (GDExtensionInterfaceVariantGetPtrDestructor)(void*)find("variant_get_ptr_destructor");
    const GDExtensionInterfaceGetVariantFromTypeConstructor variant_of =
        (GDExtensionInterfaceGetVariantFromTypeConstructor)(void*)find("get_variant_from_type_constructor");
    const GDExtensionInterfaceGetVariantToTypeConstructor of_variant =
        (GDExtensionInterfaceGetVariantToTypeConstructor)(void*)find("get_variant_to_type_constructor");
    godot.string_destroy = destructor_of(GDEXTENSION_VARIANT_TYPE_STRING);
    godot.name_destroy = destructor_of(GDEXTENSION_VARIANT_TYPE_STRING_NAME);
    static const GDExtensionVariantType used[] = {GDEXTENSION_VARIANT_TYPE_BOOL, GDEXTENSION_VARIANT_TYPE_INT, GDEXTENSION_VARIANT_TYPE_STRING,
                                                  GDEXTENSION_VARIANT_TYPE_STRING_NAME, GDEXTENSION_VARIANT_TYPE_OBJECT};
    for (size_t i = 0; i < sizeof used / sizeof used[0]; ++i) {
        godot.variant_of[used[i]] = variant_of(used[i]);
        godot.of_variant[used[i]] = of_variant(used[i]);
    }
    godot.library = library;
    *how = (GDExtensionInitialization){
        .minimum_initialization_level = GDEXTENSION_INITIALIZATION_SCENE, .initialize = initialize, .deinitialize = deinitialize};
    return 1;
}
