# A script of the node's own: it thinks beside it.
extends Phi4Flash

var frames := 0


func _process(_delta: float) -> void:
	frames += 1
