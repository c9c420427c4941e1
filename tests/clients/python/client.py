"""confluent-kafka as a test client: one JSON task in, JSON lines out (the protocol stands in tests/src/clients)."""

import json
import sys
import threading
import time

from confluent_kafka import Consumer, Producer

lock = threading.Lock()


def out(flush=False, **fields):
    with lock:
        sys.stdout.write(json.dumps(fields) + "\n")
        if flush:
            sys.stdout.flush()


def text(raw):
    return None if raw is None else raw.decode()


def stop_event():
    stop = threading.Event()

    def watch():
        sys.stdin.readline()
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    return stop


def produce(task):
    producer = Producer({
        "bootstrap.servers": task["bootstrap"],
        "enable.idempotence": task["idempotent"],
        "compression.type": task["compression"],
        "reconnect.backoff.max.ms": 500,
    })

    def delivered(error, message):
        if error is not None:
            out(t="error", m=str(error))
        else:
            out(t="ack", p=message.partition(), o=message.offset(), k=text(message.key()), v=text(message.value()))

    out(t="ready", flush=True)
    stop = stop_event()
    start = time.monotonic()
    first, count, rate = task["first"], task["count"], task["per_second"]
    n = first
    while (count is None or n < first + count) and not stop.is_set():
        if rate:
            early = start + (n - first) / rate - time.monotonic()
            if early > 0:
                producer.poll(0)
                sys.stdout.flush()
                time.sleep(early)
        value = f"{task['prefix']}:{n}:".ljust(task["size"], ".")
        arguments = {} if task["partition"] is None else {"partition": task["partition"]}
        try:
            producer.produce(task["topic"], key=f"key-{n % task['keys']}", value=value, on_delivery=delivered, **arguments)
            n += 1
        except BufferError:
            producer.poll(0.01)
        producer.poll(0)
    left = producer.flush(120)
    if left:
        out(t="error", m=f"{left} records without an answer")
    out(t="done", flush=True)


def consume(task):
    settings = {"bootstrap.servers": task["bootstrap"], "group.id": task["group"], "auto.offset.reset": "earliest",
                "reconnect.backoff.max.ms": 500}
    if task["session_ms"]:
        settings["session.timeout.ms"] = task["session_ms"]
    consumer = Consumer(settings)

    def assigned(_, partitions):
        out(t="assigned", ps=[p.partition for p in partitions], flush=True)

    def revoked(_, partitions):
        out(t="assigned", ps=[], flush=True)

    consumer.subscribe([task["topic"]], on_assign=assigned, on_revoke=revoked)
    out(t="ready", flush=True)
    stop = stop_event()
    while not stop.is_set():
        batch = consumer.consume(1000, 0.05)
        for message in batch:
            if message.error():
                out(t="note", m=str(message.error()))
            else:
                out(t="rec", p=message.partition(), o=message.offset(), k=text(message.key()), v=text(message.value()))
        sys.stdout.flush()
    consumer.close()
    out(t="done", flush=True)


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    {"produce": produce, "consume": consume}[request["cmd"]](request)
