"""The Alembic migrations make exactly the tables that the models describe."""

from alembic import autogenerate
from alembic.runtime import migration as alembic_migration
from oslotest import base

from nova_batch_migrate.db import engine, migration, models
from tests.unit.db import fixture


class MigrationCases:
    """Mixed into a test case whose setUp has set up a database without tables."""

    def test_the_tables_are_those_of_the_models(self):
        migration.upgrade()

        with engine.get_engine().connect() as connection:
            context = alembic_migration.MigrationContext.configure(
                connection, opts={"compare_type": True})
            self.assertEqual([], autogenerate.compare_metadata(context, models.Base.metadata))

    def test_an_upgrade_is_at_the_head_and_may_be_repeated(self):
        self.assertIsNone(migration.version())

        for _ in range(2):
            migration.upgrade()
            self.assertEqual(migration.head(), migration.version())


class MigrationOnSqliteTest(MigrationCases, base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixture.Database(tables=False))
