import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Writes one of everything that can be in a Kafka broker's segments, little of each: the corpus that {@code segment-dump} is compared on.
 *
 * <p>{@code {"bootstrap":…}}. It leaves one transaction open, so it ends without closing its clients.
 */
public final class Corpus {
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    /** Record timestamps begin here; segments of compacted topics roll by them. */
    private static final long BEGIN_MS = 1_700_000_000_000L;

    private final String bootstrap;

    private Corpus(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    private KafkaProducer<byte[], byte[]> producer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        all.put("linger.ms", 1000);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static byte[] bytes(String text) {
        return text.getBytes(java.nio.charset.StandardCharsets.UTF_8);
    }

    /** Every third without a key, every fourth without a value, every second with headers. */
    private static ProducerRecord<byte[], byte[]> record(String topic, Random random, int n) {
        StringBuilder value = new StringBuilder("{\"number\":" + n + ",\"name\":\"ä");
        for (int i = random.nextInt(60); i > 0; i--) value.append((char) ('a' + random.nextInt(8)));
        value.append("\"}");
        ProducerRecord<byte[], byte[]> record =
            new ProducerRecord<>(topic, 0, BEGIN_MS + n * 7L, n % 3 == 0 ? null : bytes("key-" + n), n % 4 == 0 ? null : bytes(value.toString()));
        if (n % 2 == 0) record.headers().add("number", bytes(Integer.toString(n))).add("empty", new byte[0]).add("null", null);
        return record;
    }

    private void topics() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            // The cleaner looks every 15 s by default.
            ConfigResource brokers = new ConfigResource(ConfigResource.Type.BROKER, "");
            AlterConfigOp often = new AlterConfigOp(new ConfigEntry("log.cleaner.backoff.ms", "500"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(brokers, List.of(often))).all().get();
            Map<String, String> forever = Map.of("retention.ms", "-1");
            Map<String, String> compact = Map.of("cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01", "segment.ms", "1000");
            admin.createTopics(List.of(
                new NewTopic("codecs", 1, (short) 1).configs(forever),
                new NewTopic("stamped", 1, (short) 1).configs(Map.of("retention.ms", "-1", "message.timestamp.type", "LogAppendTime")),
                new NewTopic("transactions", 1, (short) 1).configs(forever),
                new NewTopic("compacted", 1, (short) 1).configs(compact))).all().get();
        }
    }

    private void codecs(String topic) {
        for (String codec : CODECS) {
            for (boolean idempotent : new boolean[] {false, true}) {
                Random random = new Random(codec.hashCode());
                Map<String, Object> settings = Map.of("compression.type", codec, "enable.idempotence", idempotent);
                try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
                    for (int n = 0; n < 12; n++) {
                        producer.send(record(topic, random, n));
                        if (n % 5 == 0) producer.flush();
                    }
                }
            }
        }
    }

    /** Three producers: one commits, one aborts every second time, the last leaves its transaction open. */
    private void transactions(String topic) {
        KafkaProducer<byte[], byte[]> steady = producer(Map.of("transactional.id", "steady", "compression.type", "zstd"));
        KafkaProducer<byte[], byte[]> fickle = producer(Map.of("transactional.id", "fickle"));
        KafkaProducer<byte[], byte[]> open = producer(Map.of("transactional.id", "open"));
        for (KafkaProducer<byte[], byte[]> producer : List.of(steady, fickle, open)) producer.initTransactions();
        for (int round = 0; round < 5; round++) {
            steady.beginTransaction();
            fickle.beginTransaction();
            for (int n = 0; n < 3; n++) {
                steady.send(new ProducerRecord<>(topic, 0, bytes("steady"), bytes("round " + round + ", " + n)));
                fickle.send(new ProducerRecord<>(topic, 0, bytes("fickle"), bytes("round " + round + ", " + n)));
            }
            steady.flush();
            fickle.flush();
            if (round % 2 == 0) fickle.abortTransaction();
            else fickle.commitTransaction();
            if (round == 1) steady.sendOffsetsToTransaction(
                Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(3, "within a transaction")), new KafkaConsumer<>(
                    Map.of("bootstrap.servers", bootstrap, "group.id", "exactly-once"), new ByteArrayDeserializer(), new ByteArrayDeserializer()).groupMetadata());
            steady.commitTransaction();
        }
        open.beginTransaction();
        open.send(new ProducerRecord<>(topic, 0, bytes("open"), bytes("not decided")));
        open.flush();
    }

    /** Keys that are written again and again, tombstones, and producers of which nothing is left but an empty batch. */
    private void compacted(String topic) {
        for (int round = 0; round < 6; round++) {
            Map<String, Object> settings = Map.of("compression.type", CODECS[round % CODECS.length]);
            try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
                for (int key = 0; key < 10; key++) {
                    byte[] value = key == round ? null : bytes("value of round " + round);
                    producer.send(new ProducerRecord<>(topic, 0, BEGIN_MS + round * 10_000L + key, bytes("key-" + key), value));
                    if (key == 6) producer.flush();
                }
            }
        }
        // Only the last of these may stay dirty: the active segment is never cleaned.
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of())) {
            producer.send(new ProducerRecord<>(topic, 0, BEGIN_MS + 100_000L, bytes("key-3"), bytes("the last word")));
        }
    }

    private void groups(String topic) throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "group.id", "readers", "client.id", "reader"));
        settings.put("auto.offset.reset", "earliest");
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (consumer.poll(Duration.ofMillis(200)).isEmpty()) { }
            consumer.commitSync();
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(5, "by hand")));
        }
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.alterConsumerGroupOffsets("gone", Map.of(partition, new OffsetAndMetadata(1))).all().get();
            admin.deleteConsumerGroups(List.of("gone")).all().get();
        }
    }

    public static void main(String[] arguments) throws Exception {
        JsonNode task = new ObjectMapper().readTree(arguments[0]);
        Corpus corpus = new Corpus(task.get("bootstrap").asText());
        corpus.topics();
        corpus.codecs("codecs");
        corpus.codecs("stamped");
        corpus.compacted("compacted");
        corpus.transactions("transactions");
        corpus.groups("codecs");
        Runtime.getRuntime().halt(0);
    }
}
