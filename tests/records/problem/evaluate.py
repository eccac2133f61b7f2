import importlib.util


def load(program):
    spec = importlib.util.spec_from_file_location("candidate", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(program):
    module = load(program)
    return [float(module.first()), float(module.second()), float(module.third())]


def check(program):
    numbers(program)


def evaluate(program):
    values = numbers(program)
    distance = sum(abs(value - goal) for value, goal in zip(values, (7, 11, 13)))
    return {"closeness": -distance, "size": sum(abs(value) for value in values), "largest": max(values)}


def test(program):
    return {"closeness": -sum(abs(value - 10) for value in numbers(program))}
