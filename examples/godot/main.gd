# Asks, interrupts, asks again, and quits: with 0 if all that came is right.
extends Node

@onready var mind := $Mind
var tokens := 0
var frames := 0
var step := 0
var failures := 0


func _ready() -> void:
	mind.model_path = OS.get_environment("PHI4FLASH_MODEL")
	mind.token.connect(_on_token)
	mind.finished.connect(_on_finished)
	mind.failed.connect(_on_failed)
	expect(mind.budget_milliseconds == 4, "the scene's budget")
	expect(mind.ask("What is 347 + 285?"), "a question")
	expect(mind.is_thinking(), "thinking")


func _process(_delta: float) -> void:
	frames += 1


func _on_token(text: String) -> void:
	printraw(text)
	tokens += 1
	if step == 1:
		mind.interrupt()


func _on_finished(answer: String) -> void:
	printraw("\n")
	step += 1
	expect(not mind.is_thinking(), "the end of thinking")
	if step == 1:
		expect(answer.contains("boxed{632}"), "632, have " + answer)
		expect(mind.frames > 0, "a script of the node's own")
		expect(tokens > 5 and frames > tokens / 2, "%d tokens over %d frames" % [tokens, frames])
		mind.ask("What is 999 + 1?")
	elif step == 2:
		expect(answer.length() > 0 and not answer.contains("boxed{1000}"), "an interrupted answer, have " + answer)
		mind.ask("What is 12 + 30?")
	elif step == 3:
		expect(answer.contains("boxed{42}"), "42, have " + answer)
		mind.model_path = "no/such/model"
		expect(not mind.ask("What is 1 + 1?"), "no such model")


func _on_failed(message: String) -> void:
	expect(step == 3 and message.contains("no/such/model"), message)
	print("%d frames, longest thought %.1f ms" % [frames, mind.get_longest_thought() / 1000.0])
	if failures == 0:
		print("godot: all well")
	get_tree().quit(0 if failures == 0 else 1)


func expect(ok: bool, what: String) -> void:
	if not ok:
		printerr("failed: " + what)
		failures += 1
		get_tree().quit(1)
