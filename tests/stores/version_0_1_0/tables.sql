CREATE TABLE product_labels (
	api VARCHAR(64) NOT NULL, 
	key_sha256 VARCHAR(64) NOT NULL, 
	rank INTEGER NOT NULL, 
	image_key TEXT NOT NULL, 
	image_uri TEXT, 
	label TEXT NOT NULL, 
	probability FLOAT NOT NULL, 
	category TEXT, 
	subcategory TEXT, 
	scene TEXT, 
	tagged_at DATETIME NOT NULL, 
	original_label TEXT, 
	CONSTRAINT pk_product_labels PRIMARY KEY (api, key_sha256, rank)
);
INSERT INTO "product_labels" VALUES('DetectLabelPro','3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea',1,'e','https://shop/e.jpg','dog',0.9,NULL,NULL,NULL,'2026-07-01 12:00:00.000000',NULL);
INSERT INTO "product_labels" VALUES('DetectLabelPro','ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',1,'a','https://shop/a.jpg','cat',0.9,NULL,NULL,NULL,'2026-07-01 12:00:00.000000',NULL);
INSERT INTO "product_labels" VALUES('DetectLabelPro','ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',2,'a','https://shop/a.jpg','animal',0.8,NULL,NULL,NULL,'2026-07-01 12:00:00.000000',NULL);
CREATE TABLE product_labels_images (
	api VARCHAR(64) NOT NULL, 
	key_sha256 VARCHAR(64) NOT NULL, 
	image_key TEXT NOT NULL, 
	image_uri TEXT, 
	version TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	content_sha256 VARCHAR(64), 
	labels_count INTEGER NOT NULL, 
	error VARCHAR(64), 
	code VARCHAR(128), 
	message TEXT, 
	attempts INTEGER NOT NULL, 
	tagged_at DATETIME NOT NULL, 
	CONSTRAINT pk_product_labels_images PRIMARY KEY (api, key_sha256)
);
INSERT INTO "product_labels_images" VALUES('DetectLabelPro','2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6','c','https://shop/c.jpg','1','failed',NULL,0,'ImageDecodeError','-1301','It failed.',2,'2026-07-01 12:00:00.000000');
INSERT INTO "product_labels_images" VALUES('DetectLabelPro','3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d','b','https://shop/b.jpg','1','tagged',NULL,0,NULL,NULL,NULL,1,'2026-07-01 12:00:00.000000');
INSERT INTO "product_labels_images" VALUES('DetectLabelPro','3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea','e','https://shop/e.jpg','1','tagged',NULL,1,NULL,NULL,NULL,1,'2026-07-01 12:00:00.000000');
INSERT INTO "product_labels_images" VALUES('DetectLabelPro','ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb','a','https://shop/a.jpg','1','tagged','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',2,NULL,NULL,NULL,1,'2026-07-01 12:00:00.000000');
INSERT INTO "product_labels_images" VALUES('DetectLabelPro','18ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4','d','https://shop/d.jpg','1','unfinished','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd',0,'ImageDownloadError','FailedOperation.DownloadError','It failed.',2,'2026-07-01 12:00:00.000000');
CREATE INDEX ix_product_labels_images_image_key ON product_labels_images (image_key);
CREATE INDEX ix_product_labels_images_content_sha256 ON product_labels_images (content_sha256);
CREATE INDEX ix_product_labels_image_key ON product_labels (image_key);
