import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Java's kafka-clients as a test client: one JSON task in, JSON lines out (the protocol stands in tests/src/clients). */
public final class Client {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false) {};
    private static final StringBuilder PENDING = new StringBuilder(1 << 17);

    private static synchronized void line(String text) {
        PENDING.append(text).append('\n');
        if (PENDING.length() > 1 << 16) flush();
    }

    private static synchronized void flush() {
        OUT.print(PENDING);
        OUT.flush();
        PENDING.setLength(0);
    }

    private static String quoted(String text) {
        try {
            return JSON.writeValueAsString(text);
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    private static String record(String kind, int partition, long offset, String key, String value) {
        return "{\"t\":\"" + kind + "\",\"p\":" + partition + ",\"o\":" + offset + ",\"k\":" + quoted(key) + ",\"v\":" + quoted(value) + "}";
    }

    private static AtomicBoolean stopFlag() {
        AtomicBoolean stop = new AtomicBoolean();
        Thread watcher = new Thread(() -> {
            try {
                new BufferedReader(new InputStreamReader(System.in)).readLine();
            } catch (Exception e) {
                // A closed pipe means stop as well.
            }
            stop.set(true);
        });
        watcher.setDaemon(true);
        watcher.start();
        return stop;
    }

    private static void produce(JsonNode task) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", task.get("bootstrap").asText());
        if (!task.get("idempotent").asBoolean()) settings.put("enable.idempotence", "false");
        if (!task.get("compression").asText().equals("none")) settings.put("compression.type", task.get("compression").asText());
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            line("{\"t\":\"ready\"}");
            flush();
            AtomicBoolean stop = stopFlag();
            long start = System.nanoTime();
            long first = task.get("first").asLong();
            long end = task.get("count").isNull() ? Long.MAX_VALUE : first + task.get("count").asLong();
            Integer partition = task.get("partition").isNull() ? null : task.get("partition").asInt();
            for (long n = first; n < end && !stop.get(); n++) {
                if (!task.get("per_second").isNull()) {
                    long due = start + (long) ((n - first) * 1e9 / task.get("per_second").asDouble());
                    long early = due - System.nanoTime();
                    if (early > 0) {
                        flush();
                        Thread.sleep(early / 1_000_000, (int) (early % 1_000_000));
                    }
                }
                StringBuilder value = new StringBuilder(task.get("prefix").asText() + ":" + n + ":");
                while (value.length() < task.get("size").asInt()) value.append('.');
                String key = "key-" + n % task.get("keys").asLong();
                ProducerRecord<String, String> record = new ProducerRecord<>(task.get("topic").asText(), partition, key, value.toString());
                producer.send(record, (metadata, error) -> {
                    if (error != null) {
                        line("{\"t\":\"error\",\"m\":" + quoted(error.toString()) + "}");
                    } else {
                        line(record("ack", metadata.partition(), metadata.offset(), record.key(), record.value()));
                    }
                });
            }
            producer.flush();
        }
        line("{\"t\":\"done\"}");
        flush();
    }

    private static void assigned(Set<TopicPartition> partitions) {
        line("{\"t\":\"assigned\",\"ps\":[" + partitions.stream().map(p -> "" + p.partition()).collect(Collectors.joining(",")) + "]}");
        flush();
    }

    private static void consume(JsonNode task) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", task.get("bootstrap").asText());
        settings.put("group.id", task.get("group").asText());
        settings.put("auto.offset.reset", "earliest");
        if (!task.get("session_ms").isNull()) {
            settings.put("session.timeout.ms", task.get("session_ms").asText());
            settings.put("heartbeat.interval.ms", "" + task.get("session_ms").asInt() / 4);
        }
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(task.get("topic").asText()), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> added) {
                    assigned(consumer.assignment());
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> removed) {
                    Set<TopicPartition> left = new java.util.HashSet<>(consumer.assignment());
                    left.removeAll(removed);
                    assigned(left);
                }
            });
            line("{\"t\":\"ready\"}");
            flush();
            AtomicBoolean stop = stopFlag();
            while (!stop.get()) {
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(50))) {
                    line(record("rec", r.partition(), r.offset(), r.key(), r.value()));
                }
                flush();
            }
        }
        line("{\"t\":\"done\"}");
        flush();
    }

    public static void main(String[] arguments) throws Exception {
        JsonNode task = JSON.readTree(arguments[0]);
        try {
            if (task.get("cmd").asText().equals("produce")) produce(task);
            else consume(task);
        } catch (Exception e) {
            line("{\"t\":\"error\",\"m\":" + quoted(e.toString()) + "}");
            flush();
            throw e;
        }
    }
}
